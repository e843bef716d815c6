"""Trails of orders and accounts: their history, and their waiting messages."""
