"""The PostgreSQL backend of Django with a cheaper check of persistent connections."""
