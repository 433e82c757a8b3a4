"""Profiles of the operator: named sources that groups of machines are offered, and what each machine took of them."""
