"""Advisory lock numbers, and lock timeouts with retries for schema changes."""
