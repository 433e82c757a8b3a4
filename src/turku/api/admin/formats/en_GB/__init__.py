"""English, as Europe writes times."""
