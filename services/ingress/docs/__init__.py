"""What the API tells of itself: OpenAPI, the docs page, error codes."""
