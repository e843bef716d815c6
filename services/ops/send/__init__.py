"""`fellow send`: signs and sends a file of orders."""
