"""What storages prove of the history they keep: damage found and healed, restore drills."""
