"""What stands where a person's data stood, in tables and in messages.

The rows stay: what was ordered of whom, when, and what became of it are the business's books. The
same constants are in migration 0026, whose function writes them.
"""

TEXT = "[erased]"
ADDRESS = "erased@erased.invalid"
"""The form of an address, so that facts about the order stay valid; nobody's (RFC 6761, 6.4)."""
EMPTY = ""
"""In place of what may be missing, such as a phone number."""
