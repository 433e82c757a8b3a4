"""Rules on what a machine declares: changes that weaken its protection, and sources that it takes from profiles."""
