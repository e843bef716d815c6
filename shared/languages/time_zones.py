"""Time zones by their IANA names."""

from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

UTC = ZoneInfo("UTC")


@cache
def names() -> frozenset[str]:
    """Return the names of all zones, such as `Africa/Lagos`; the files are read once."""
    return frozenset(available_timezones())


@lru_cache(maxsize=1_024)
def zone(name: str) -> ZoneInfo:
    """Return a zone; UTC if the name is unknown or empty.

    Args:
        name: IANA name.
    """
    return ZoneInfo(name) if name in names() else UTC
