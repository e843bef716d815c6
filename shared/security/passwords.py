"""Passwords: what may be one, and its hash, argon2id (RFC 9106) with the recommended parameters.

What may be one is NIST SP 800-63B, 5.1.1.2: a length, a list of those that everybody tries first,
nothing that is known of the account, and no rules of composition.

A hash takes 64 MiB for as long as it is computed (RFC 9106, 4), which is what it is for. So a
process computes as many at once as it has cores, and refuses in words who would wait for long.
Requests wait for their turn before they have a thread or a transaction (`shared/http/lanes.py`).
"""

import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from shared.http.errors import overloaded

MIN_LENGTH = 8
MAX_LENGTH = 128
MOST_AT_ONCE = 4
"""Hashes at once on a machine of many cores: a container of two may count all of its machine's."""
PATIENCE = 5.0
"""Seconds to wait for a turn. A transaction is open meanwhile, and a thread taken."""

_COMMON = frozenset(FREQUENCY_LISTS["passwords"])
_hasher = PasswordHasher()


def at_once(processes: int = 1) -> int:
    """How many hashes one process computes at once.

    Args:
        processes: among how many like it the cores are shared.
    """
    return max(1, min(os.cpu_count() or 1, MOST_AT_ONCE) // processes)


def share_cores(processes: int) -> None:
    """Say, before the first hash, among how many processes like this one the cores are shared."""
    global _count, _turns
    _count = at_once(processes)
    _turns = threading.BoundedSemaphore(_count)


def turns() -> int:
    """How many hashes this process computes at once."""
    return _count


_count = at_once()
_turns = threading.BoundedSemaphore(_count)


def faults(password: str, *known: str) -> list[str]:
    """Everything for which a password is refused, a sentence each; empty when it may be one.

    Args:
        password: as it was given.
        known: what anybody knows of the account: its address, its name.
    """
    password = normalized(password)
    found = []
    if len(password) < MIN_LENGTH:
        found.append(f"It is shorter than {MIN_LENGTH} characters.")
    if len(password) > MAX_LENGTH:
        found.append(f"It is longer than {MAX_LENGTH} characters.")
    folded = _folded(password)
    if password.casefold() in _COMMON or (folded and folded in _COMMON):
        found.append("It is one of the passwords that are tried first.")
    if _is_a_row(password):
        found.append("It repeats one character, or counts on from it.")
    if folded and folded in {_folded(text) for name in known for text in _parts(name)}:
        found.append("It is the account's own address or name.")
    return found


def hash_password(password: str) -> str:
    """A salted hash, with its parameters.

    Raises:
        ApiError: 503, when too many are computed already.
    """
    with _turn():
        return _hasher.hash(normalized(password))


def matches(password: str, stored: str | None) -> bool:
    """Whether `password` is the one behind `stored`.

    An unknown account (None) costs the same work, so that time tells nobody who has an account.

    Raises:
        ApiError: 503, when too many are compared already.
    """
    try:
        with _turn():
            return _hasher.verify(stored or _decoy(), normalized(password)) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Whether `stored` was made with other parameters than those in use now."""
    return _hasher.check_needs_rehash(stored)


def normalized(password: str) -> str:
    """The form that is hashed, NFC: keyboards differ in how they write the same characters."""
    return unicodedata.normalize("NFC", password)


@contextmanager
def _turn() -> Iterator[None]:
    turns = _turns
    if not turns.acquire(timeout=PATIENCE):
        raise overloaded("Too many passwords are compared at once. Try again shortly.")
    try:
        yield
    finally:
        turns.release()


def _folded(text: str) -> str:
    return "".join(c for c in normalized(text).casefold() if c.isalnum())


def _parts(name: str) -> tuple[str, ...]:
    return name, *name.split("@")


def _is_a_row(password: str) -> bool:
    steps = {ord(b) - ord(a) for a, b in pairwise(password)}
    return len(steps) == 1 and steps <= {-1, 0, 1}


@cache
def _decoy() -> str:
    return _hasher.hash("nobody's password")
