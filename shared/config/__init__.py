"""Settings: read from the environment, converted, and checked once at start."""
