"""File access on volumes: through open directories, and never by way of a symbolic link."""
