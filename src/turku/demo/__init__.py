"""turku demo: the three programs together on one machine, for newcomers and end-to-end tests."""
