"""Shops that send by webhooks of their own kind: a module each, behind one interface."""
