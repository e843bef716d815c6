"""The hot path, from a signed request to a confirmed message."""
