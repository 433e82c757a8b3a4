"""The rows, questions and acts of the commands about machines and storages."""
