"""HTTP/1.1 on a connection: what uvicorn and httptools leave without a bound."""
