"""The protection of this host: facts that ``turku-storage check`` shows, and ``setup`` makes true."""
