"""Backups of the coordinator itself: database, keys and settings, and the way back from them."""
