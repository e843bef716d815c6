"""A worker's cache of secrets, public keys and policies, and what keeps it current."""
