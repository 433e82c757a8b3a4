"""Turku: backups where neither side can reach into the other. Start reading at docs/architecture.md."""

__version__ = "2.0.0.dev0"
