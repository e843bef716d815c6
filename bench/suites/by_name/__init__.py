"""Suites that run when they are named: all together would take more than ten minutes."""
