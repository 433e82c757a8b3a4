"""The audit log: who changed what, from where; it only grows."""
