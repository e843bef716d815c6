"""What carries pages: the API by HTTP, sessions, the adapter to Falcon, templates."""
