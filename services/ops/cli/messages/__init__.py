"""`fellow dead|journal|outbox|queues`: about messages that wait."""
