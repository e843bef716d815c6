"""What the doctor finds of one part."""

from dataclasses import dataclass
from typing import Literal

SKEW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one part.

    Attributes:
        about: the part.
        state: `fine`; `look`: it works, but not as it should; `broken`.
        found: what was found, in words.
        advice: what to do; empty when it is fine.
    """

    about: str
    state: Literal["fine", "look", "broken"]
    found: str
    advice: str = ""


def clocks(server: str, skew: float) -> Check:
    """How a server's clock stands to this host's.

    Args:
        server: whose.
        skew: by how many seconds it is ahead.
    """
    if abs(skew) <= SKEW_SECONDS:
        return Check(f"{server} clock", "fine", f"{skew:+.1f} s from this host's")
    return Check(
        f"{server} clock",
        "look",
        f"{skew:+.1f} s from this host's",
        "Run NTP on both: signatures, codes and secrets go by the time.",
    )
