"""Email addresses as they are mailed: the domain in ASCII (RFC 5890, 2.3.2.1)."""

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
