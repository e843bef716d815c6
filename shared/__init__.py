"""Code shared by all services: bus, database, HTTP, configuration, security, telemetry."""
