"""The configuration of the storage: its keys, loading it and checking it."""
