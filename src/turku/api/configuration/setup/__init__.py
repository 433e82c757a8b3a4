"""Setting a coordinator up on its host: the answers to its questions, the settings they make, and the plan of steps."""
