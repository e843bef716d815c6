"""Export and erasure of a customer's data."""
