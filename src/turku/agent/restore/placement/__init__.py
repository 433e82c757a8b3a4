"""Placement: moving the files that a storage sent from the staging directory to their places in the target."""
