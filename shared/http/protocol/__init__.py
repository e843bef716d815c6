"""The HTTP/1.1 protocol of a connection: limits that uvicorn and httptools lack."""
