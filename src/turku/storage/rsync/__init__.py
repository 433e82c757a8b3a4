"""Running rsync as a client: arguments, output, statistics, exit codes, and bandwidth."""
