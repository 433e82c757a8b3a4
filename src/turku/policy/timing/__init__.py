"""The rules of time: cron expressions, local time, points in time that people type, clock agreement."""
