"""What is counted among nobody's: the standing proof's orders, and test orders.

The proof's own business and customers are told from everybody else by their addresses. Their domain
is reserved never to be anybody's (RFC 6761, 6.4). So no email of theirs can reach a person, and
nobody else can prove such an address: who has one is the proof.

A test order is told by its row (`Order.is_live`), its events by their type (`Event.IS_TEST`), and
its emails by their template.
"""

DOMAIN = "proof.order-fellow.invalid"
LIKE = f"%@{DOMAIN}"
"""For SQL: the addresses of the proof, in small letters."""
TEST = "test_"
"""Before the name of a template in `email_deliveries`: the email told of a test order."""


def is_synthetic(address: str) -> bool:
    """Whether an email address is the standing proof's."""
    return address.lower().endswith(f"@{DOMAIN}")
