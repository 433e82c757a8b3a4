"""The backup of one source: its sequence, its strategy, and the assessment of the result."""
