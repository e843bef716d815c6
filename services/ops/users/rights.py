"""Rights of the console's users, beside viewing pages with masked personal data."""

from collections.abc import Collection
from enum import StrEnum


class Right(StrEnum):
    """A right; each unmasks the personal data that it needs.

    `kyc`: decide on applications, and read them; replace and revoke secrets, set limits, block.
    `messages`: replay, mend and discard what could not be handled or published, and read it.
    `customers`: read orders, whom they are for, and the audit log's details, also as a file.
    """

    KYC = "kyc"
    MESSAGES = "messages"
    CUSTOMERS = "customers"


WATCH, ACT = "watch", "act"
"""The roles of no right and of all rights."""


class NoSuchRightError(ValueError):
    """An unknown right; the message lists the known ones."""


def parse(role: str) -> frozenset[Right]:
    """Return the rights of a role.

    Args:
        role: `watch`, `act`, or rights separated by commas.

    Raises:
        NoSuchRightError: it has an unknown name.
    """
    if role.strip() == WATCH:
        return frozenset()
    if role.strip() == ACT:
        return frozenset(Right)
    try:
        return frozenset(Right(name.strip()) for name in role.split(","))
    except ValueError:
        known = ", ".join(Right)
        raise NoSuchRightError(
            f"A role is {WATCH}, {ACT}, or some of {known}, separated by commas; and not {role!r}."
        ) from None


def written(rights: Collection[Right]) -> str:
    """Return the role of these rights, as `parse` reads it."""
    if not rights:
        return WATCH
    return ACT if set(rights) == set(Right) else ",".join(sorted(rights))
