"""The integrity of stored history as storages report it: damage, repair and restore drills."""
