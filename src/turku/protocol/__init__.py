"""The conversations between the three programs: messages, one codec, the HTTP client (docs/contract.md)."""
