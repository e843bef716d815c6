"""Keys, passwords, tokens and addresses: who somebody is, and what only some may read."""
