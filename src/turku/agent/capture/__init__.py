"""Capture: deciding which entries of a source are offered, and which of them have changed."""
