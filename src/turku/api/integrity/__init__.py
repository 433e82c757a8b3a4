"""What storages prove of the history they keep: damage found and repaired, restore drills."""
