"""The settings: names, defaults, units, and where they are read from."""
