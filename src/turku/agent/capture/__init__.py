"""The part of the agent that decides which entries of a source are offered and which of them changed."""
