"""`fellow send`: a file of orders, signed and sent."""
