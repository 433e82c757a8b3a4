"""The append-only audit log of who changed what, and from where."""
