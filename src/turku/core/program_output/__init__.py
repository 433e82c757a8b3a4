"""The output of other programs, which may be long: fast reading of its lines, and a bounded log of its messages."""
