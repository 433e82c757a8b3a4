"""The kit of the commands that set a host up: a plan of steps, a record of what they made, and its undoing."""
