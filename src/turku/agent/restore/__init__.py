"""Restores on the machine: the session with the storage, verification, and placement of the files."""
