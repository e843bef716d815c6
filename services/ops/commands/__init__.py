"""Commands to the services: published, told to the audit log, and waited for."""
