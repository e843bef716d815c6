"""The API's documentation: OpenAPI, the docs page, error codes, security.txt."""
