"""The subcommands of ``turku-storage``, one file each."""
