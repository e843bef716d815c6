"""The bus: topology and messages as data, one publisher, one consumer runtime."""
