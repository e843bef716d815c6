"""Hashes of passwords that cost next to nothing, in every process that tests start.

A real one takes 64 MiB and a tenth of a second of processor time (RFC 9106, 4), and half of the
tests sign in. What is about the cost itself starts its processes with `IN_FULL` in their
environment.
"""

import functools
from collections.abc import Mapping

import argon2

IN_FULL = "TESTS_HASH_PASSWORDS_IN_FULL"
_RECOMMENDED = argon2.PasswordHasher


def install(environment: Mapping[str, str]) -> None:
    """Make hashes cheap for what imports `argon2.PasswordHasher` from now on.

    Args:
        environment: of the process.
    """
    cheap = functools.partial(_RECOMMENDED, time_cost=1, memory_cost=8, parallelism=1)
    argon2.PasswordHasher = _RECOMMENDED if IN_FULL in environment else cheap
