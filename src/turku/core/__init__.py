"""Foundations of every program, without a word about backups: clock, processes, durable files, locks, logs, secrets."""
