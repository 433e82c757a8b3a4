"""The SSH tunnel to a storage: its address, its trusted host keys, the connection and its output."""
