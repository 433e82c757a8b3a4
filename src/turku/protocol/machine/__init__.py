"""Messages about a machine, beyond the contract: its state at the coordinator, and the entries that changed lately."""
