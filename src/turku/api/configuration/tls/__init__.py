"""The coordinator's own TLS: certificates that it makes or is given, their renewal, and keys that change."""
