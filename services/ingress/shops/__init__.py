"""Webhooks that platforms send for their shops: whose they are, and what they come to."""
