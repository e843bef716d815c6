"""The standing proof's own business and customers, told from everybody else by their addresses.

Their domain is reserved never to be anybody's (RFC 6761, 6.4). So no email of theirs can reach a
person, and nobody else can prove such an address: who has one is the proof.
"""

DOMAIN = "proof.order-fellow.invalid"
LIKE = f"%@{DOMAIN}"
"""For SQL: the addresses of the proof, in small letters."""


def is_synthetic(address: str) -> bool:
    """Whether an email address is the standing proof's."""
    return address.lower().endswith(f"@{DOMAIN}")
