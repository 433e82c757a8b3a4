"""The subcommands of ``turku-storage``, of which only the typed one is imported."""
