"""The settings of the coordinator: TURKU_* variables and key files."""
