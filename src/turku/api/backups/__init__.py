"""The sources of machines, when they are due, and the record of their backup runs."""
