"""The Django project of the coordinator: settings, environment, checks, URLs, and serving it."""
