"""The storage towards the coordinator and sshd: registration, secrets, and the keys of machines."""
