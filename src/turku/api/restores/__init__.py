"""Restores on behalf of others: who may see and have which history, and restores asked for at the coordinator."""
