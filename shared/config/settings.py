"""All settings, each an environment variable.

Every variable has a default that works in development. With `ENVIRONMENT=production` a process
refuses to start with guessable keys, unencrypted connections or links that others cannot open
(`production.py`), and does not load keys that it does not need (`processes.py`). Secrets may be in
files: `NAME_FILE`.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec

from shared.config.environment import ConfigurationError
from shared.security.service_accounts import OPERATOR_NAME, is_operator_name

DEVELOPMENT_JWT_KEY = "development-only-jwt-key-never-use-in-production"
# Base64 of 32 consecutive byte values each, recognisably not random; one key per use.
DEVELOPMENT_ENCRYPTION_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
DEVELOPMENT_RECEIPT_KEY = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
DEVELOPMENT_CODE_KEY = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="
DEVELOPMENT_SECOND_FACTOR_KEY = "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8="
DEVELOPMENT_UNSUBSCRIBE_KEY = "gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8="
DEVELOPMENT_PORTAL_KEY = "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t8="
DEVELOPMENT_TRACKING_KEY = "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8="

JOURNAL_DAYS = 7
"""Days for which the journal keeps messages (`x-max-age`, shared/bus/contract/topology.py)."""
MOST_SHARDS = 64
"""Maximum number of queues for `intake`."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Days = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


def _text(pattern: str, description: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=pattern, description=description)


_WEB_ADDRESS = "an address that begins with http:// or https://"
WebAddress = Annotated[str, _text(r"^https?://.*$", _WEB_ADDRESS)]
WebAddressOrNone = Annotated[str, _text(r"^(https?://.*)?$", _WEB_ADDRESS)]
Contact = Annotated[
    str,
    _text(r"^((mailto|https|tel):[!-~]+)?$", "an address that begins with mailto:, https: or tel:"),
]
EmailsOrNone = Annotated[
    str,
    _text(
        r"^([^@\s,]+@[^@\s,]+(\s*,\s*[^@\s,]+@[^@\s,]+)*)?$", "email addresses, separated by commas"
    ),
]
HostAndPort = Annotated[str, _text(r"^([^:\s]+:[0-9]{1,5})?$", "a host and a port, host:port")]


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """All settings, each an environment variable of the same name in upper case.

    `docs/configuration.md` is generated from this: the comments are its headings, and the text
    under a field is its description.
    """

    # General
    environment: Literal["development", "test", "production"] = "development"
    """`development`, `test` or `production`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` for machines."""
    health_file: str = ""
    """File to which a consumer or the relay writes its state every second; `deploy/alive` and
    `python -m shared.health` exit 0 if it is healthy, and otherwise print why not."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Port of a process's metrics page; `0` disables it. The ingress has `/metrics` on its own
    port instead."""
    metrics_host: str = "127.0.0.1"
    """Address it listens on; must not be reachable from outside."""
    otel_exporter_otlp_endpoint: WebAddressOrNone = ""
    """OpenTelemetry collector that receives traces over HTTP, such as `http://collector:4318`; see
    [tracing.md](tracing.md)."""

    # Servers
    amqp_url: str = "amqp://guest:guest@127.0.0.1:5672/"
    """RabbitMQ, with the service's user; `amqps://` for TLS. For a cluster, the URLs of several
    nodes, separated by `;`, with one user and virtual host: if one is unreachable the next is
    used."""
    amqp_order: Literal["listed", "shuffled"] = "listed"
    """Order in which several nodes are tried: `listed`, as given, or `shuffled`, randomly at each
    start of a process, which spreads the processes over the nodes."""
    amqp_password: str = ""
    """Password that is put into `AMQP_URL`, which then has a user only."""
    database_url: str = "postgresql+psycopg2://postgres@127.0.0.1:5432/order_fellow"
    """PostgreSQL; must start with `postgresql+psycopg2://`. A pooler in between must use session
    pooling, because LISTEN and advisory locks belong to a session, and pass `options` on."""
    database_password: str = ""
    """Password that is put into `DATABASE_URL`, which then has a user only."""
    database_pool_size: Count = 10
    """Connections per process at most; an ingress worker and the console use two more for attempt
    counts."""
    database_connect_timeout: Seconds = 5.0
    """Seconds."""
    amqp_heartbeat: Annotated[int, msgspec.Meta(ge=5, le=600)] = 30
    """Seconds, 5 to 600."""
    intake_shards: Annotated[int, msgspec.Meta(ge=1, le=MOST_SHARDS)] = 1
    """Number of queues over which accepted webhooks are spread by account: `orders.intake`,
    `orders.intake.1` and so on, each with its own leader on the broker; the same for all
    processes. See [deploying.md](deploying.md#intake-in-several-queues) for how to change it."""

    # Setting the servers up
    service_passwords: str = ""
    """Only for the two set-up steps: `ingress=...,kyc=...`, a password for each service's user
    on the broker and role in the database."""
    operator_passwords: str = ""
    """Only for the topology step: `ada=...,ola=...`, a user of the broker for each operator,
    who may publish `kyc.decide` and nothing else."""
    rabbitmq_management_url: WebAddressOrNone = ""
    """Only for the topology step: the management API that creates these users, such as
    `http://rabbitmq:15672`."""

    unprotected_hosts: str = ""
    """Hosts to which production may connect without TLS over a private network, separated by
    commas. Otherwise it refuses `amqp://`, `sslmode` below `require`, `http://` and mail servers
    without STARTTLS on other machines."""

    # Keys
    secret_encryption_keys: str = DEVELOPMENT_ENCRYPTION_KEY
    """Keys that seal webhook secrets at rest, separated by commas: the first seals, all
    open."""
    one_time_code_keys: str = DEVELOPMENT_CODE_KEY
    """Keys of one-time codes, 32 bytes in base64 each, separated by commas: the first seals codes
    on their way to the mail and hashes stored ones, all open and verify."""
    second_factor_keys: str = DEVELOPMENT_SECOND_FACTOR_KEY
    """Keys that seal the second factors of ops staff, 32 bytes in base64 each, separated by
    commas: the first seals, all open."""
    jwt_signing_key: str = DEVELOPMENT_JWT_KEY
    """Keys of access and refresh tokens, at least 32 characters each, separated by commas: the
    first signs, all verify."""
    receipt_signing_keys: str = DEVELOPMENT_RECEIPT_KEY
    """Ed25519 keys of [receipts](request-log.md), separated by commas: the first signs, all are
    published."""
    unsubscribe_keys: str = DEVELOPMENT_UNSUBSCRIBE_KEY
    """Keys of the unsubscribe links and of the hashes of suppressed addresses, 32 bytes in base64
    each, separated by commas: the first signs and hashes, all verify and find."""
    portal_keys: str = DEVELOPMENT_PORTAL_KEY
    """Keys that seal the sessions of the portal, 32 bytes in base64 each, separated by commas: the
    first seals, all open."""
    tracking_keys: str = DEVELOPMENT_TRACKING_KEY
    """Keys of the links to orders in customers' emails, 32 bytes in base64 each, separated by
    commas: the first signs, all verify."""
    access_token_seconds: Seconds = 600.0
    """Lifetime of an access token; less than that of a refresh token."""
    refresh_token_seconds: Seconds = 86_400.0
    """Lifetime of a refresh token."""
    session_seconds: Count = 2_592_000
    """Lifetime of a sign-in, including its renewals."""

    # Ingress
    host: str = "127.0.0.1"
    """Address the ingress listens on."""
    port: Port = 8000
    """Port the ingress listens on."""
    web_concurrency: Count = 2
    """Ingress workers."""
    public_url: WebAddress = "http://127.0.0.1:8000"
    """Public URL of the API, used in emails and OpenAPI. Production requires `https://` and refuses
    addresses of this machine."""
    security_contact: Contact = ""
    """Contact for vulnerability reports, such as `mailto:security@shop.example`, in
    `/.well-known/security.txt`, which does not exist while this is empty."""
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    """Number of proxies in front that add to `X-Forwarded-For`."""
    clients_connect_directly: bool = False
    """Declares that there is no proxy in front. Otherwise production refuses `TRUSTED_PROXIES=0`,
    with which all clients behind a proxy share the limits of one ([proxies.md](proxies.md))."""
    max_body_bytes: Count = 262_144
    """Largest webhook body."""
    request_seconds: Seconds = 10.0
    """Longest time for a request to arrive, and for a client to read nothing of its response."""
    max_outstanding_confirms: Count = 5_000
    """Unconfirmed orders per worker; beyond it the response is 503."""
    confirm_timeout: Seconds = 2.0
    """Seconds to wait for a confirm before the order is written to the outbox."""
    account_rate_per_second: Count = 5_000
    """Orders per account and worker."""
    address_refusals_per_minute: Count = 600
    """Refused webhooks per client address and worker."""
    sign_in_attempts_per_minute: Count = 30
    """Registrations and requested codes per network (an IPv4 address or an IPv6 /64), worker and
    route; failed sign-ins and codes per network over all workers. A network can cause four times as
    many emails per hour to addresses whose accounts were not used from it. Networks that an account
    has used have limits of their own."""
    tracking_views_per_minute: Count = 60
    """Views of one order by its customer's link, and of the unsubscribe page, from all networks;
    views of invalid links per network; per worker."""
    account_attempts_per_minute: Count = 10
    """Failed sign-ins and codes for one account from all networks that it has not used, and for one
    user of the console from unknown browsers; at most 45 and 20 per hour. Also the changes to each
    thing that a session can change, per worker; all sessions of an account can make five times as
    many."""
    secret_poll_seconds: Seconds = 1.0
    """Maximum age of a worker's secrets while the bus is unreachable."""

    # Ops console
    ops_port: Port = 8001
    """Port the ops console listens on, at `HOST`."""
    ops_idle_seconds: Seconds = 1_800.0
    """Time without a request after which a console session ends."""
    ops_session_seconds: Seconds = 43_200.0
    """Longest lifetime of a console session."""
    ops_second_factor: Literal["optional", "required"] = "optional"
    """Whether console users need a second factor: `optional` or `required`, the value in compose;
    see [console.md](console.md#a-second-factor)."""

    # Alerts
    alert_email_to: EmailsOrNone = ""
    """Recipients of alerts by email, addresses separated by commas; see
    [operations.md](operations.md#alerts)."""
    alert_webhook_url: WebAddressOrNone = ""
    """Webhook for alerts: an incoming webhook of Slack, a workflow of Teams, which gets a card, or
    any other that accepts JSON with a `text`. A secret: it permits writing there."""
    alert_after_seconds: Seconds = 60.0
    """How long a condition must last before an alert is sent."""
    alert_remind_seconds: Seconds = 14_400.0
    """Interval of reminders of an alert that is not acknowledged."""

    # Portal
    portal_port: Port = 8002
    """Port the portal listens on, at `HOST`."""
    portal_api_url: WebAddress = "http://127.0.0.1:8000"
    """URL of the API for the portal: an ingress without a proxy in between, because the portal
    sends the client's address in `X-Forwarded-For` as a proxy does."""
    tracking_url: WebAddressOrNone = ""
    """URL of the customers' order page, such as `https://portal.shop.example/track`, a page of the
    portal; if empty, emails have no link. In production as `PUBLIC_URL`."""

    # The standing proof
    proof_url: WebAddress = "http://127.0.0.1:8000"
    """URL to which the standing proof sends its orders; in compose the door."""
    proof_port: Port = 2525
    """Port on which the standing proof receives its emails."""
    proof_seconds: Seconds = 60.0
    """Interval between two proofs."""
    proof_sink: HostAndPort = ""
    """Mail server for the standing proof's emails, `host:port`; in compose `proof:2525`."""

    # KYC
    kyc_approvals_required: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Number of operators, each by name, whose equal decisions an approval or a revocation needs;
    see [console.md](console.md#two-persons)."""
    kyc_approval_days: Count = 7
    """How long a decision waits for further ones."""
    kyc_unnamed_decisions: Literal["", "take", "refuse"] = ""
    """Whether to `take` or `refuse` decisions without a person authenticated by the broker, such
    as those of the shared `fellow_operator`; empty means `refuse` in production, else `take`."""

    # Webhook secrets
    secret_lifetime_days: Count = 90
    """Lifetime of a webhook secret."""
    secret_rotate_ahead_days: Count = 14
    """How long before its end the next secret is made; less than its lifetime."""
    secret_warn_ahead_days: Count = 3
    """How long before the end of a replaced secret the business is reminded; less than its
    lifetime."""
    secret_schedule_seconds: Seconds = 15.0
    """Interval of the check for due rotations and reminders."""

    # Consumers
    order_batch_size: Count = 500
    """Orders recorded in one transaction."""
    account_email_burst: Count = 1_000
    """Order emails that an account may cause in a burst, per recorder; further ones wait in
    `notifier.bulk`."""
    account_emails_per_second: Count = 100
    """Sustained rate of an account's order emails beyond which they wait there."""
    account_updates_waiting: Count = 10_000
    """Status updates of an account with an unknown order, per recorder, that are retried for four
    hours; further ones are given up immediately, and their sender is notified."""
    email_batch_size: Count = 64
    """Emails sent between two commits."""
    recipient_emails_per_day: Count = 500
    """Order emails of one account to one mailbox per day and queue of a notifier, ignoring what
    follows a `+`; further ones are recorded as undeliverable and not sent."""

    # Customers' data
    retention_orders_days: Days = 730
    """After which an order is removed with its history and conflicts: counted from its recording
    or from the latest time stamped by its sender; of an order that waits to be placed, from its
    first event. 0 keeps it indefinitely, here and below; production refuses 0
    ([privacy.md](privacy.md))."""
    retention_test_orders_days: Days = 30
    """After which a test order is removed."""
    retention_history_days: Days = 365
    """After which the note of a status is removed."""
    retention_conflicts_days: Days = 90
    """After which a conflicting order is removed."""
    retention_deliveries_days: Days = 365
    """After which the record of a sent email is removed."""
    retention_request_log_days: Days = 30
    """Days of the request log."""
    retention_dead_letters_days: Days = 90
    """After which a dead letter is discarded."""
    retention_unproved_days: Days = 1
    """After which a registration without a proved address is removed."""
    retention_known_networks_days: Days = 365
    """After which an unused network no longer counts as an account's own."""
    retention_sessions_days: Days = 1
    """After which an ended session is removed."""
    backup_days: Days = 0
    """How long you keep backups of the database, which `fellow customer` reports; 0: unknown."""

    # Email
    smtp_host: str = "127.0.0.1"
    """Mail server."""
    smtp_port: Port = 1025
    """Its port."""
    smtp_starttls: bool = False
    """`true` requires TLS and verifies the certificate."""
    smtp_username: str = ""
    """User name for authentication; empty for none."""
    smtp_password: str = ""
    """Password for authentication."""
    smtp_timeout: Seconds = 300.0
    """Seconds for the greeting and for each command (RFC 5321, 4.5.3.2); connecting times out
    after 30."""
    smtp_content_timeout: Seconds = 600.0
    """Seconds for the reply to an email's content; with less, an email that was accepted late is
    sent twice."""
    smtp_connections: Count = 4
    """Connections kept open for order emails; up to 28 more while those wait for a reply."""
    smtp_bulk_connections: Count = 2
    """Connections kept open for emails in `notifier.bulk`."""
    email_from: str = "Order Fellow <no-reply@order-fellow.example>"
    """The From header."""

    def listed(self, name: str) -> tuple[str, ...]:
        """Return the keys in a setting; the first seals or signs.

        Args:
            name: one of `shared.config.processes.KEYS`.
        """
        keys: str = getattr(self, name.lower())
        return tuple(key.strip() for key in keys.split(",") if key.strip())

    def passwords_of(self, services: Collection[str]) -> dict[str, str]:
        """Return the `SERVICE_PASSWORDS` of `services`.

        Raises:
            ConfigurationError: a part of it is not `name=password`.
        """
        known = self.passwords_in("SERVICE_PASSWORDS")
        return {name: known[name] for name in services if name in known}

    def passwords_in(self, setting: str) -> dict[str, str]:
        """Return the passwords in `SERVICE_PASSWORDS` or `OPERATOR_PASSWORDS` by name.

        Raises:
            ConfigurationError: a part of it is not `name=password`, or a name is invalid.
        """
        found: dict[str, str] = {}
        example = "ingress=...,kyc=..." if setting == "SERVICE_PASSWORDS" else "ada=...,ola=..."
        listed: str = getattr(self, setting.lower())
        for part in listed.split(","):
            name, equals, password = part.strip().partition("=")
            if name and not (equals and password):
                raise ConfigurationError(f"{setting} must be like {example}")
            if setting == "OPERATOR_PASSWORDS" and name and not is_operator_name(name):
                raise ConfigurationError(
                    f"{setting}: {name} is not a valid operator name: {OPERATOR_NAME}"
                )
            if name:
                found[name] = password
        return found
