"""Orders: recorded in batches, shown to their account."""

SOURCE = "services.orders"
