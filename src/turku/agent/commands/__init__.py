"""The subcommands of ``turku-agent``. Only the module of the typed one is imported."""
