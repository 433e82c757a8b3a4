"""Proof that stored files are good: scrubs, repair, comparison with the machine, and restore drills."""
