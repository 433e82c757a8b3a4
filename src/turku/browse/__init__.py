"""Browsing on both sides: the arguments of snapshots, ls, versions, find and diff, and the tables that they print."""
