"""The subcommands of ``turku-agent``, one file each."""
