"""Adapters for the webhooks of shop platforms: a module each, behind one interface."""
