"""Access to history, and restores that operators request at the coordinator."""
