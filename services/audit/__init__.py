"""The audit log: actions of people and services, in a hash chain."""

SOURCE = "services.audit"
