"""The command-line kit of all programs: arguments, tables, output, and errors as exit codes."""
