"""Identifies synthetic data, which no figure counts: the standing proof's, and test orders.

The proof's business and customers are identified by their addresses in a reserved domain (RFC 6761,
6.4). So their emails reach no person, and no other account can prove such an address.

A test order is identified by its row (`Order.is_live`), its events by their type (`Event.IS_TEST`),
and its emails by their template.
"""

DOMAIN = "proof.order-fellow.invalid"
LIKE = f"%@{DOMAIN}"
"""SQL pattern of the proof's addresses, in lower case."""
TEST = "test_"
"""Prefix of a template's name in `email_deliveries` for an email about a test order."""


def is_synthetic(address: str) -> bool:
    """Return whether an email address is the standing proof's."""
    return address.lower().endswith(f"@{DOMAIN}")
