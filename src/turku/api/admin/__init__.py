"""The pages for people: the admin site."""
