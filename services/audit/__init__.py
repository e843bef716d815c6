"""The audit log: what people and services did, in a chain of hashes."""

SOURCE = "services.audit"
