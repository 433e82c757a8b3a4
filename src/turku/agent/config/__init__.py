"""The configuration of the agent: its keys, loading it and checking it."""
