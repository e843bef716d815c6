"""Sending emails over SMTP."""
