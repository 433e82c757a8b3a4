"""What every program stands on: clock, processes, durable files, locks, configuration, logs, secrets."""
