"""The operator commands of ``turku-api`` as Django management commands."""
