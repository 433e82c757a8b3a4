"""The management package that Django requires."""
