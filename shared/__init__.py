"""What every service stands on: the bus, the database, the outbox, configuration, keys, logs, metrics."""
