"""The subcommands of ``turku-agent``, of which only the typed one is imported."""
