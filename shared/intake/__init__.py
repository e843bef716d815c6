"""Reads what senders send: the bodies of webhooks, and files of orders."""
