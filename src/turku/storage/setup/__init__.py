"""Setting a storage up on its host: volumes, configuration, snippets for sudo and sshd, and the plan of all steps."""
