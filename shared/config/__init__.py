"""Settings: read from the environment, typed, and checked once at start."""
