"""The subcommands of ``turku-storage``. Only the module of the typed one is imported."""
