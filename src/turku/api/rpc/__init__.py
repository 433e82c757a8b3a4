"""The calls that agents and storages make (contract, section 3)."""
