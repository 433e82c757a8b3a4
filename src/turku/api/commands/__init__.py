"""The subcommands of ``turku-api``, of which only the typed one is imported, after Django is set up."""
