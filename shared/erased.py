"""Placeholders for erased personal data in tables and messages.

The rows are kept, because the business needs its records of orders. The same constants are in
migration 0026, whose function writes them.
"""

TEXT = "[erased]"
ADDRESS = "erased@erased.invalid"
"""A valid address, so that events about the order stay valid; undeliverable (RFC 6761, 6.4)."""
EMPTY = ""
"""For optional fields, such as a phone number."""
