"""`fellow dead|journal|outbox|queues`: messages and queues."""
