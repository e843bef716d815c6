"""What somebody may do at the console, beside looking at pages on which persons are masked."""

from collections.abc import Collection
from enum import StrEnum


class Right(StrEnum):
    """One right; each has its own persons' data in the clear.

    `kyc`: decide on applications, and read them; replace and revoke secrets, set limits, block.
    `messages`: replay, mend and discard what could not be handled or published, and read it.
    `customers`: read orders, whom they are for, and the audit log's details, also as a file.
    """

    KYC = "kyc"
    MESSAGES = "messages"
    CUSTOMERS = "customers"


WATCH, ACT = "watch", "act"
"""The names of none of them, and of all."""


class NoSuchRightError(ValueError):
    """A name is no right's; the message says which there are."""


def parse(role: str) -> frozenset[Right]:
    """The rights that a role names.

    Args:
        role: `watch`, `act`, or rights separated by commas.

    Raises:
        NoSuchRightError: see there.
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
    """The role of somebody who has these rights, as `parse` reads it."""
    if not rights:
        return WATCH
    return ACT if set(rights) == set(Right) else ",".join(sorted(rights))
