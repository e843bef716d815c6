"""Access to the broker's queues: locked, without disturbing them, and copying with confirms."""
