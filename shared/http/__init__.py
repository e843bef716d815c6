"""HTTP APIs: routes as data with plain handlers, and their adapter to Falcon."""
