"""The queue of machines for slots of storages, and the leases on those slots."""
