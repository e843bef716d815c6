"""What every service stands on: bus, database, outbox, configuration, keys, logs, metrics."""
