"""The calls that agents and storages make (contract, "Calls")."""
