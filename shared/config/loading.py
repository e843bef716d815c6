"""Loads the settings of a process from its environment and checks them once, at its start."""

import os
import random
from collections.abc import Collection, Mapping, MutableMapping
from functools import cache
from urllib.parse import unquote, urlsplit

import msgspec

from shared.config import environment
from shared.config.environment import ConfigurationError
from shared.config.keys import decode_key
from shared.config.processes import KEYS, READS
from shared.config.production import production_faults
from shared.config.settings import JOURNAL_DAYS, Settings

ADDRESSES = (
    "AMQP_URL",
    "DATABASE_URL",
    "RABBITMQ_MANAGEMENT_URL",
    "PROOF_URL",
    "PORTAL_API_URL",
    "PUBLIC_URL",
    "TRACKING_URL",
    "ALERT_WEBHOOK_URL",
)

# May be given as `NAME_FILE`, the path of a file with the value.
SECRET = frozenset(
    {
        "AMQP_URL",
        "AMQP_PASSWORD",
        "DATABASE_URL",
        "DATABASE_PASSWORD",
        "SERVICE_PASSWORDS",
        "OPERATOR_PASSWORDS",
        *KEYS,
        "SMTP_PASSWORD",
        "ALERT_WEBHOOK_URL",
    }
)

OPTIONAL = frozenset({"OPERATOR_PASSWORDS", "SMTP_PASSWORD", "ALERT_WEBHOOK_URL"})
"""Secrets that may be unset; compose mounts an empty file for them then."""

_NOT_IN_JOURNAL = (
    "RETENTION_UNPROVED_DAYS",
    "RETENTION_KNOWN_NETWORKS_DAYS",
    "RETENTION_SESSIONS_DAYS",
)
"""Retention settings of data that no journalled message restores."""
SHORTER = (
    (
        "SECRET_ROTATE_AHEAD_DAYS",
        "SECRET_LIFETIME_DAYS",
        "a secret would be replaced as soon as it is made, again and again",
    ),
    (
        "SECRET_WARN_AHEAD_DAYS",
        "SECRET_LIFETIME_DAYS",
        "a business would be reminded as soon as the secret is made",
    ),
    (
        "ACCESS_TOKEN_SECONDS",
        "REFRESH_TOKEN_SECONDS",
        "the refresh token would expire before the access token that it renews",
    ),
)
"""Pairs of settings of which the first must be less than the second, and why."""


def names() -> list[str]:
    """Return the environment variables of all settings, without their `NAME_FILE` forms."""
    return [field.encode_name for field in msgspec.structs.fields(Settings)]


def forget(environ: MutableMapping[str, str], but: Collection[str] = ()) -> None:
    """Remove all settings, such as a `HOST` that some shells export.

    Args:
        environ: environment variables.
        but: names to keep.
    """
    for name in {*names(), *(f"{name}_FILE" for name in SECRET)}.difference(but):
        environ.pop(name, None)


def load(environ: Mapping[str, str], process: str = "", *, needs_keys: bool = True) -> Settings:
    """Read and check the settings in `environ`.

    Args:
        environ: environment variables; unknown and empty ones are ignored.
        process: one of `READS`: only the settings that it reads are checked, and in production
            other keys are dropped. Any other name reads all settings.
        needs_keys: whether it uses the keys that it reads; `fellow` uses none of the console's.

    Raises:
        ConfigurationError: a value has the wrong type, form or range, a file cannot be read, or
            `production.py` refuses a setting in production; has all faults.
    """
    faults: list[str] = []
    values = environment.read_values(environ, names(), SECRET, OPTIONAL, faults)
    values = environment.with_passwords(values, ("AMQP", "DATABASE"), faults)
    settings = environment.typed(values, Settings, SECRET, faults)
    if settings.amqp_order == "shuffled":
        urls = environment.addresses(settings.amqp_url)
        shuffled = ";".join(random.sample(urls, len(urls)))
        settings = msgspec.structs.replace(settings, amqp_url=shuffled)
    reads = frozenset(READS.get(process, names())) - (frozenset() if needs_keys else {*KEYS})
    if settings.environment == "production":
        unread = {name.lower(): "" for name in KEYS if name not in reads}
        settings = msgspec.structs.replace(settings, **unread)
    unreadable = [name for name in ADDRESSES if _is_unreadable(getattr(settings, name.lower()))]
    # urllib's message may quote a part of the password.
    faults += (
        f"{name} cannot be read: write what is special in its password as %xx"
        for name in unreadable
        if name in reads
    )
    reads = reads.difference(unreadable)
    faults += _faults(settings, reads)
    if settings.environment == "production":
        faults += production_faults(settings, reads)
    if faults:
        raise ConfigurationError(*dict.fromkeys(faults))
    return settings


_process = ""


def begin(process: str) -> Settings:
    """Load and return the settings of this process; the first call of its `main`.

    Args:
        process: one of `READS`.

    Raises:
        ConfigurationError: see `load`.
    """
    global _process
    _process = process
    settings.cache_clear()
    return settings()


@cache
def settings() -> Settings:
    """Return the settings of this process, loaded from its environment at the first call."""
    return load(os.environ, _process)


def _is_unreadable(addresses: str) -> bool:
    return any(environment.is_unreadable(url) for url in environment.addresses(addresses))


def _faults(settings: Settings, reads: Collection[str]) -> list[str]:
    """Return the faults that are refused in every environment, a sentence each."""
    faults = _broker_faults(settings.amqp_url) if "AMQP_URL" in reads else []
    if "DATABASE_URL" in reads and not settings.database_url.startswith("postgresql+psycopg2://"):
        faults.append("DATABASE_URL must start with postgresql+psycopg2://")
    for name in (name for name in ("SERVICE_PASSWORDS", "OPERATOR_PASSWORDS") if name in reads):
        try:
            settings.passwords_in(name)
        except ConfigurationError as error:
            faults += error.faults
    for name in (name for name in KEYS if name in reads):
        listed = settings.listed(name)
        if not listed:
            faults.append(f"{name} is empty: give at least one key")
        for key in () if name == "JWT_SIGNING_KEY" else listed:
            try:
                decode_key(key, name)
            except ConfigurationError as error:
                faults += error.faults
    for name in sorted(name for name in reads if name.startswith("RETENTION_")):
        days = getattr(settings, name.lower())
        # A replay of the journal would create removed rows again.
        if 0 < days <= JOURNAL_DAYS and name not in _NOT_IN_JOURNAL:
            faults.append(
                f"{name} must be more than the journal's {JOURNAL_DAYS} days, or 0 for no limit"
            )
    for shorter, longer, why in SHORTER:
        short, long = (getattr(settings, name.lower()) for name in (shorter, longer))
        if {shorter, longer} <= {*reads} and short >= long:
            faults.append(f"{shorter} ({short:g}) must be less than {longer} ({long:g}): {why}")
    return faults


def _broker_faults(amqp_url: str) -> list[str]:
    """Return the faults of the broker's URLs, without quoting passwords."""
    urls = environment.addresses(amqp_url)
    if not all(url.startswith(("amqp://", "amqps://")) for url in urls):
        if len(urls) == 1:
            return ["AMQP_URL must start with amqp:// or amqps://"]
        return [
            "AMQP_URL: each address must start with amqp:// or amqps://; "
            "write ; in a password as %3B"
        ]
    # Users and virtual hosts are the same on all nodes of a cluster.
    nodes = [urlsplit(url) for url in urls]
    users = sorted({unquote(node.username or "guest") for node in nodes})
    vhosts = sorted({unquote(node.path[1:]) or "/" for node in nodes})
    faults = []
    if len(users) > 1:
        faults.append(f"AMQP_URL: all addresses must have one user, not {', '.join(users)}")
    elif len({unquote(node.password or "guest") for node in nodes}) > 1:
        faults.append("AMQP_URL: all addresses must have the same password")
    if len(vhosts) > 1:
        faults.append(f"AMQP_URL: all addresses must have one vhost, not {', '.join(vhosts)}")
    return faults
