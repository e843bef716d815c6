"""Orders: recorded in batches, shown to their account."""
