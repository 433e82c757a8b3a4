"""Database helpers: batched writes, bounded row counts, and the PostgreSQL backend."""
