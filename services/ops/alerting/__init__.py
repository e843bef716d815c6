"""Telling people of troubles who do not look: by email, and to a webhook."""
