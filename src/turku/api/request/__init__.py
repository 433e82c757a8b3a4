"""Request helpers: the address of the client, response headers, and the errors of a message."""
