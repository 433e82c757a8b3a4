"""The admin pages, by model."""
