"""The parts of ``turku-agent setup``: the files that it writes, its plan, and the first backup."""
