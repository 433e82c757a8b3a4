"""Rules of all programs as pure functions: names, filters, schedules, retention. No input, no output, no clock."""
