"""The result of one of the doctor's checks."""

from dataclasses import dataclass
from typing import Literal

SKEW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        about: the checked part.
        state: `fine`; `look`: it works, but needs attention; `broken`.
        found: the finding, in words.
        advice: what to do; empty if the state is `fine`.
    """

    about: str
    state: Literal["fine", "look", "broken"]
    found: str
    advice: str = ""


def clocks(server: str, skew: float) -> Check:
    """Check a server's clock against this host's.

    Args:
        server: the server's name.
        skew: seconds that its clock is ahead of this host's.
    """
    if abs(skew) <= SKEW_SECONDS:
        return Check(f"{server} clock", "fine", f"{skew:+.1f} s from this host's")
    return Check(
        f"{server} clock",
        "look",
        f"{skew:+.1f} s from this host's",
        "Run NTP on both: signatures, codes and secrets depend on the time.",
    )
