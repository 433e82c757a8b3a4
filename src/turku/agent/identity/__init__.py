"""The identity of the machine: its UUID and secret, its SSH key pair, and their rotation."""
