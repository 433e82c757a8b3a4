"""The commands of `turku-api`, by the names that Django requires."""
