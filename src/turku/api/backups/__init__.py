"""What is backed up and how it went: sources, when they are due, the record of each run."""
