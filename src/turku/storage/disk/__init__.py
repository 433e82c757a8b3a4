"""The layout on a volume: source directories, snapshots and their records, history, retention, trash."""
