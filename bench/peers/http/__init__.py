"""Webhooks as other frameworks would have them, and ours without parts of it."""
