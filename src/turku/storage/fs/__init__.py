"""The only code that opens what lies on a volume: through open directories, and never by way of a symbolic link."""
