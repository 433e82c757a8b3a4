"""Rules as pure functions: names, filter rules, schedules, retention. No input, no output, no clock."""
