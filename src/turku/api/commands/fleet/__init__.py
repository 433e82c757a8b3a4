"""The commands about machines, storages and what is offered to them, with their rows and questions."""
