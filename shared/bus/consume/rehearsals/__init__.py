"""Rehearsals: run a handler in a transaction that is rolled back, and report its effects."""
