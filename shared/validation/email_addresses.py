"""Email addresses as they are mailed, and as they are compared.

The domain is in ASCII (RFC 5890, 2.3.2.1).
"""

import idna


def with_ascii_domain(address: str) -> str:
    """The same address, with a domain of other letters in its A-label form, such as `xn--…`.

    Mapped as browsers do (UTS 46), so capital letters and full-width dots are understood. What is
    no address, or no domain, comes back as it is.

    Args:
        address: without white space around it.
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
    """An address as it is mailed, and as people write it where that differs.

    Args:
        address: with its domain in ASCII.
    """
    local, at, domain = address.rpartition("@")
    try:
        written = idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return [address]
    return list(dict.fromkeys([address, f"{local}{at}{written}"]))


def compared(address: str) -> str:
    """The form of an address that is the same for all ways to write it.

    In small letters altogether: a domain has no case (RFC 1035, 2.3.3), and what stands before the
    @ may have one (RFC 5321, 2.4) that no mailbox is known to tell apart by. Who has left as `zoe@`
    is not to be mailed as `Zoe@`.
    """
    return with_ascii_domain(address.strip()).lower()
