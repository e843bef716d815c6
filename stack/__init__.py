"""The development stack: real servers for `make run`, `make demo` and tests. Not in the image."""
