"""The suites of `python -m bench`, by the names that it takes."""
