"""Who may back up now: slots of storages, leases on them, and the queue for them."""
