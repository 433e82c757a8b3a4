"""Interfaces of the Linux kernel: capabilities, disk priority, and the table of TCP sockets."""
