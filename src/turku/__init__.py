"""The backup system Turku, in which neither side can reach into the other (start with docs/architecture.md)."""

__version__ = "2.0.0.dev0"
