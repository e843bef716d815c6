"""Password rules, and hashes by argon2id (RFC 9106) with the recommended parameters.

The rules are those of NIST SP 800-63B, 5.1.1.2: a length, a list of common passwords, nothing known
of the account, and no composition rules.

A hash needs 64 MiB while it is computed (RFC 9106, 4). So a process computes as many in parallel as
it has cores, and refuses requests that would wait too long. Requests wait before they have a thread
or a transaction (`shared/http/lanes.py`).
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
"""Most parallel hashes: `os.cpu_count()` in a container may count all cores of the machine."""
PATIENCE = 5.0
"""Seconds to wait for a free slot, with an open transaction and a thread."""

_COMMON = frozenset(FREQUENCY_LISTS["passwords"])
_hasher = PasswordHasher()


def parallel_hashes(processes: int = 1) -> int:
    """Return how many hashes one process should compute in parallel.

    Args:
        processes: number of processes that share the cores.
    """
    return max(1, min(os.cpu_count() or 1, MOST_AT_ONCE) // processes)


def share_cores(processes: int) -> None:
    """Set, before the first hash, how many processes share the cores."""
    global _count, _turns
    _count = parallel_hashes(processes)
    _turns = threading.BoundedSemaphore(_count)


def parallelism() -> int:
    """Return how many hashes this process computes in parallel."""
    return _count


_count = parallel_hashes()
_turns = threading.BoundedSemaphore(_count)


def faults(password: str, *known: str) -> list[str]:
    """Return the reasons to refuse a password, a sentence each; empty if it is allowed.

    Args:
        password: as typed.
        known: public texts of the account: its address and name.
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
    if _is_sequence(password):
        found.append("It repeats one character, or counts on from it.")
    if folded and folded in {_folded(text) for name in known for text in _parts(name)}:
        found.append("It is the account's own address or name.")
    return found


def hash_password(password: str) -> str:
    """Return a salted hash, with its parameters.

    Raises:
        ApiError: 503, if no slot is free within `PATIENCE`.
    """
    with _turn():
        return _hasher.hash(normalized(password))


def matches(password: str, stored: str | None) -> bool:
    """Return whether `password` matches the hash `stored`.

    An unknown account (None) takes the same work, so that timing does not reveal accounts.

    Raises:
        ApiError: 503, if no slot is free within `PATIENCE`.
    """
    try:
        with _turn():
            return _hasher.verify(stored or _decoy(), normalized(password)) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Return whether `stored` was made with other parameters than the current ones."""
    return _hasher.check_needs_rehash(stored)


def normalized(password: str) -> str:
    """Return a password in NFC, in which it is hashed, because keyboards compose differently."""
    return unicodedata.normalize("NFC", password)


@contextmanager
def _turn() -> Iterator[None]:
    turns = _turns
    if not turns.acquire(timeout=PATIENCE):
        raise overloaded("Too many passwords are being checked. Try again shortly.")
    try:
        yield
    finally:
        turns.release()


def _folded(text: str) -> str:
    return "".join(c for c in normalized(text).casefold() if c.isalnum())


def _parts(name: str) -> tuple[str, ...]:
    return name, *name.split("@")


def _is_sequence(password: str) -> bool:
    steps = {ord(b) - ord(a) for a, b in pairwise(password)}
    return len(steps) == 1 and steps <= {-1, 0, 1}


@cache
def _decoy() -> str:
    return _hasher.hash("the password of no account")
