"""The private rsync daemons of the agent: one serves a backup, one receives a restore."""
