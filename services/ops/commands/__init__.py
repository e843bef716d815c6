"""Commands to the services: recorded in the audit log, published, and followed to their outcome."""
