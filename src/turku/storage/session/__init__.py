"""The forced command of a machine: the request, the checkin, and the backups and restores of one session."""
