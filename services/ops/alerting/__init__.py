"""Alerts about troubles, by email and to a webhook."""
