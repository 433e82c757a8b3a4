"""The files that the agent keeps in ``var_dir``."""
