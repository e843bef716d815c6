"""The audit log: reading it, and telling it what ops staff did."""
