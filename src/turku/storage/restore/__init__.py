"""The storage side of a restore: access, snapshot lookup, browsing, and pushing the files."""
