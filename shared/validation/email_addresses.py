"""Normal forms of email addresses, for sending and for comparison.

The domain is in ASCII (A-labels, RFC 5890, 2.3.2.1).
"""

import idna


def with_ascii_domain(address: str) -> str:
    """Return an address with its domain in A-labels, such as `xn--…`.

    Mapped by UTS 46, as browsers do, so capital letters and full-width dots are understood. Other
    text, or an invalid domain, is returned unmodified.

    Args:
        address: without surrounding white space.
    """
    local, at, domain = address.rpartition("@")
    if not at or domain.isascii():
        return address
    try:
        ascii_domain = idna.encode(domain, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return address
    return f"{local}@{ascii_domain}"


def spellings(address: str) -> list[str]:
    """Return an address and, if it differs, the form with its domain in Unicode.

    Args:
        address: with its domain in ASCII.
    """
    local, at, domain = address.rpartition("@")
    try:
        written = idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return [address]
    return list(dict.fromkeys([address, f"{local}{at}{written}"]))


def mailbox(address: str) -> str:
    """Return the normal form that all addresses of one mailbox share.

    Most providers ignore what follows a `+` in the local part (RFC 5233, 1).
    """
    local, at, domain = compared(address).rpartition("@")
    return f"{local.partition('+')[0] or local}{at}{domain}"


def compared(address: str) -> str:
    """Return the normal form that all spellings of an address share, in lower case.

    Domains are case-insensitive (RFC 1035, 2.3.3). Local parts may be case-sensitive (RFC 5321,
    2.4), but no provider is known to distinguish mailboxes by it, and a customer who unsubscribed
    as `zoe@` must not receive email as `Zoe@`.
    """
    return with_ascii_domain(address.strip()).lower()
