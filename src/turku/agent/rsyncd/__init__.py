"""The agent's own rsync daemons: one serves a backup, one receives a restore."""
