"""Configuration: environment variables, typed and checked once at start.

Every variable has a default that works in development. With `ENVIRONMENT=production` a process
refuses to start while a key that it needs can be guessed or a connection is open to others
(`production.py`), and says which one; keys that it does not need (`processes.py`) it does not have.
What is secret may be in a file: `NAME_FILE`.
"""

import os
from collections.abc import Collection, Mapping
from functools import cache
from typing import Annotated, Literal

import msgspec

from shared.config import environment
from shared.config.environment import ConfigurationError
from shared.config.keys import decode_key
from shared.config.processes import KEYS, READS
from shared.config.production import complaints
from shared.security.service_accounts import is_operators

DEVELOPMENT_JWT_KEY = "development-only-jwt-key-never-use-in-production"
# 32 bytes of zeros and ones in base64url: recognisably not random.
DEVELOPMENT_ENCRYPTION_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
# Another, of 32 bytes from 0x20: what signs must not be what seals.
DEVELOPMENT_RECEIPT_KEY = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
# And one from 0x40.
DEVELOPMENT_CODE_KEY = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="
# And one from 0x60.
DEVELOPMENT_SECOND_FACTOR_KEY = "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8="

JOURNAL_DAYS = 7
"""For how long the journal keeps messages (`x-max-age`, shared/bus/contract/topology.py)."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Days = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


def _text(pattern: str, words: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=pattern, description=words)


_WEB_ADDRESS = "an address that begins with http:// or https://"
WebAddress = Annotated[str, _text(r"^https?://.*$", _WEB_ADDRESS)]
WebAddressOrNone = Annotated[str, _text(r"^(https?://.*)?$", _WEB_ADDRESS)]
Contact = Annotated[
    str,
    _text(r"^((mailto|https|tel):[!-~]+)?$", "an address that begins with mailto:, https: or tel:"),
]
HostAndPort = Annotated[str, _text(r"^([^:\s]+:[0-9]{1,5})?$", "a host and a port, host:port")]


ADDRESSES = ("AMQP_URL", "DATABASE_URL", "RABBITMQ_MANAGEMENT_URL", "PROOF_URL", "PUBLIC_URL")

# May be given as `NAME_FILE`, the path of a file that holds it.
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
    }
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """Everything that can be set, by the environment variable of the same name in capitals."""

    environment: Literal["development", "test", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    # Touched by a consumer while it is alive; `python -m shared.health` looks at it.
    health_file: str = ""
    # The metrics of a process without HTTP of its own; 0 is off.
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    metrics_host: str = "127.0.0.1"
    # Traces go to this OpenTelemetry collector; none are made while it is empty.
    otel_exporter_otlp_endpoint: WebAddressOrNone = ""

    # Servers
    amqp_url: str = "amqp://guest:guest@127.0.0.1:5672/"
    amqp_password: str = ""
    database_url: str = "postgresql+psycopg2://postgres@127.0.0.1:5432/order_fellow"
    database_password: str = ""
    database_pool_size: Count = 10
    database_connect_timeout: Seconds = 5.0
    amqp_heartbeat: Annotated[int, msgspec.Meta(ge=5, le=600)] = 30

    # For the steps that set the servers up alone: `ingress=...,kyc=...`, one password a service,
    # which it has on the broker and in the database.
    service_passwords: str = ""
    # For the topology alone, likewise: a user of their own for each operator.
    operator_passwords: str = ""
    rabbitmq_management_url: WebAddressOrNone = ""

    # Hosts, separated by commas, that production may speak to without TLS.
    unprotected_hosts: str = ""

    # Keys. Several may be listed in each, separated by commas: the first seals or signs, all open
    # or verify.
    secret_encryption_keys: str = DEVELOPMENT_ENCRYPTION_KEY
    one_time_code_keys: str = DEVELOPMENT_CODE_KEY
    second_factor_keys: str = DEVELOPMENT_SECOND_FACTOR_KEY
    jwt_signing_key: str = DEVELOPMENT_JWT_KEY
    # Ed25519, 32 bytes in base64 each; all are published.
    receipt_signing_keys: str = DEVELOPMENT_RECEIPT_KEY
    access_token_seconds: Seconds = 600.0
    refresh_token_seconds: Seconds = 86_400.0
    # However often it is renewed.
    session_seconds: Count = 2_592_000

    # Ingress
    host: str = "127.0.0.1"
    port: Port = 8000
    web_concurrency: Count = 2
    public_url: str = "http://127.0.0.1:8000"
    # In /.well-known/security.txt, which is not there while this is empty.
    security_contact: Contact = ""
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    max_body_bytes: Count = 262_144
    request_seconds: Seconds = 10.0
    max_outstanding_confirms: Count = 5_000
    confirm_timeout: Seconds = 2.0
    account_rate_per_second: Count = 5_000
    address_refusals_per_minute: Count = 600
    sign_in_attempts_per_minute: Count = 30
    account_attempts_per_minute: Count = 10
    secret_poll_seconds: Seconds = 1.0

    # Ops console; it listens on `host` too.
    ops_port: Port = 8001
    ops_idle_seconds: Seconds = 1_800.0
    ops_session_seconds: Seconds = 43_200.0
    ops_second_factor: Literal["optional", "required"] = "optional"

    # The standing proof. It listens for its emails on `host` too; the notifier gives them to
    # `proof_sink`, `host:port`. While that is empty they go to the mail server like all others.
    proof_url: WebAddress = "http://127.0.0.1:8000"
    proof_port: Port = 2525
    proof_seconds: Seconds = 60.0
    proof_sink: HostAndPort = ""

    # KYC
    kyc_approvals_required: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    kyc_approval_days: Count = 7
    # A decision that the broker vouches for no name of; empty: refused in production.
    kyc_unnamed_decisions: Literal["", "take", "refuse"] = ""

    # Webhook secrets
    secret_lifetime_days: Count = 90
    secret_rotate_ahead_days: Count = 14
    secret_warn_ahead_days: Count = 3
    secret_schedule_seconds: Seconds = 15.0

    # Consumers
    order_batch_size: Count = 500
    account_email_burst: Count = 1_000
    account_emails_per_second: Count = 100
    account_updates_waiting: Count = 10_000
    email_batch_size: Count = 64
    recipient_emails_per_day: Count = 500

    # Customers' data: after how many days it ends; 0: never, which production refuses.
    retention_orders_days: Days = 730
    retention_history_days: Days = 365
    retention_conflicts_days: Days = 90
    retention_deliveries_days: Days = 365
    retention_request_log_days: Days = 30
    retention_dead_letters_days: Days = 90
    retention_unproved_days: Days = 1
    # For how long the backups of the database are kept, which nothing here does: `fellow customer`
    # says when they will have forgotten. 0: not known.
    backup_days: Days = 0

    # Email
    smtp_host: str = "127.0.0.1"
    smtp_port: Port = 1025
    smtp_starttls: bool = False
    smtp_username: str = ""
    smtp_password: str = ""
    smtp_timeout: Seconds = 300.0
    smtp_content_timeout: Seconds = 600.0
    smtp_connections: Count = 4
    smtp_bulk_connections: Count = 2
    email_from: str = "Order Fellow <no-reply@order-fellow.example>"

    def listed(self, name: str) -> tuple[str, ...]:
        """The keys in a setting, the one that seals or signs first.

        Args:
            name: one of `shared.config.processes.KEYS`.
        """
        keys: str = getattr(self, name.lower())
        return tuple(key.strip() for key in keys.split(",") if key.strip())

    def passwords_of(self, services: Collection[str]) -> dict[str, str]:
        """The passwords among `SERVICE_PASSWORDS` that are for `services`.

        Raises:
            ConfigurationError: a part of it is not `name=password`.
        """
        known = self.passwords_in("SERVICE_PASSWORDS")
        return {name: known[name] for name in services if name in known}

    def passwords_in(self, setting: str) -> dict[str, str]:
        """The passwords in `SERVICE_PASSWORDS` or `OPERATOR_PASSWORDS`, by name.

        Raises:
            ConfigurationError: a part of it is not `name=password`, or a name is none.
        """
        found: dict[str, str] = {}
        example = "ingress=...,kyc=..." if setting == "SERVICE_PASSWORDS" else "ada=...,ola=..."
        listed: str = getattr(self, setting.lower())
        for part in listed.split(","):
            name, equals, password = part.strip().partition("=")
            if name and not (equals and password):
                raise ConfigurationError(f"{setting} must be like {example}")
            if setting == "OPERATOR_PASSWORDS" and name and not is_operators(name):
                raise ConfigurationError(
                    f"{setting}: {name} is no operator's name: up to 64 small letters, digits, "
                    "dots, underscores and hyphens, as on the console, and no fellow_"
                )
            if name:
                found[name] = password
        return found


def load(environ: Mapping[str, str], process: str = "", *, needs_keys: bool = True) -> Settings:
    """Read and check the settings in `environ`.

    Args:
        environ: environment variables; those that are no setting of ours are ignored, and so is
            one that is set to nothing.
        process: one of `READS`, whose keys alone are needed, and in production kept; any other
            needs all.
        needs_keys: whether it uses the keys that it reads; `fellow` uses none of the console's.

    Raises:
        ConfigurationError: a value has the wrong type, form or range, a file cannot be read, or
            production runs on what `production.py` refuses; with all of these at once.
    """
    names = [field.encode_name for field in msgspec.structs.fields(Settings)]
    faults: list[str] = []
    given = environment.given(environ, names, SECRET, faults)
    given = environment.with_passwords(given, ("AMQP", "DATABASE"), faults)
    settings = environment.typed(given, Settings, SECRET, faults)
    reads = frozenset(READS.get(process, names)) - (frozenset() if needs_keys else {*KEYS})
    if settings.environment == "production":
        unread = {name.lower(): "" for name in KEYS if name not in reads}
        settings = msgspec.structs.replace(settings, **unread)
    unreadable = [name for name in ADDRESSES if _is_unreadable(getattr(settings, name.lower()))]
    # Not in its own words, which may be a part of the password.
    faults += (
        f"{name} cannot be read: write what is special in its password as %xx"
        for name in unreadable
        if name in reads
    )
    reads = reads.difference(unreadable)
    faults += _faults(settings, reads)
    if settings.environment == "production":
        faults += complaints(settings, reads)
    if faults:
        raise ConfigurationError(*dict.fromkeys(faults))
    return settings


_process = ""


def begin(process: str) -> Settings:
    """The settings of this process, as one of `READS`; the first call of its `main`.

    Raises:
        ConfigurationError: as `load` does.
    """
    global _process
    _process = process
    settings.cache_clear()
    return settings()


@cache
def settings() -> Settings:
    """The settings of this process, read from its environment at the first call."""
    return load(os.environ, _process)


def _is_unreadable(addresses: str) -> bool:
    return any(environment.is_unreadable(url) for url in addresses.split(";"))


def _faults(settings: Settings, reads: Collection[str]) -> list[str]:
    """What is wrong with settings wherever they are used, a sentence each."""
    faults = []
    brokers = settings.amqp_url.split(";")
    if "AMQP_URL" in reads and not all(url.startswith(("amqp://", "amqps://")) for url in brokers):
        faults.append("AMQP_URL must start with amqp:// or amqps://")
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
        # What the journal can say again must still be known, or it would be done again.
        if 0 < days <= JOURNAL_DAYS and name != "RETENTION_UNPROVED_DAYS":
            faults.append(
                f"{name} must be more than the journal's {JOURNAL_DAYS} days, or 0 for ever"
            )
    return faults
