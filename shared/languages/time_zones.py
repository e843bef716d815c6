"""Time zones by their names in the IANA database."""

from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

UTC = ZoneInfo("UTC")


@cache
def names() -> frozenset[str]:
    """Every zone there is, such as `Africa/Lagos`; the files are looked through once."""
    return frozenset(available_timezones())


@lru_cache(maxsize=1_024)
def zone(name: str) -> ZoneInfo:
    """A zone; UTC where there is none of this name (any more).

    Args:
        name: IANA's; empty: UTC.
    """
    return ZoneInfo(name) if name in names() else UTC
