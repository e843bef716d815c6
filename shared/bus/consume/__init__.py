"""How a message arrives: consumed in batches, once, and what becomes of it when it fails."""
