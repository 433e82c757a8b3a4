"""The health marks of machines, storages, sources and queues, all defined in one place."""
