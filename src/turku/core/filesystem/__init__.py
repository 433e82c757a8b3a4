"""Access to files through open directories: walks, attributes, ACLs, holes and mounts."""
