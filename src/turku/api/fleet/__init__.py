"""The registered fleet: registration Auths, storages, machines, filter sets, and what proves who they are."""
