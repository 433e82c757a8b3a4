"""turku-agent: runs on the machine that is backed up."""
