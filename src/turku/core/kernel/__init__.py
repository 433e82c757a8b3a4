"""Interfaces of the system below: capabilities, disk priority, TCP sockets, the running system and its programs."""
