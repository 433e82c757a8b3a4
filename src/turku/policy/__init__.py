"""Rules of all programs as pure functions, without input, output or a clock."""
