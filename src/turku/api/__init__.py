"""turku-api: the coordinator, a Django project."""
