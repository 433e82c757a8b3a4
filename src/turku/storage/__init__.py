"""turku-storage: runs on the servers that keep backups."""
