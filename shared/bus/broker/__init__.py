"""Connections to the broker, declarations on it, and the meaning of its errors."""
