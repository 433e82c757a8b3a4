"""The registered fleet: Auths, storages, machines, policies and filter sets."""
