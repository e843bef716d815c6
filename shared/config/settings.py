"""Everything that can be set, by environment variable.

Every variable has a default that works in development. With `ENVIRONMENT=production` a process
refuses to start while a key that it needs can be guessed, a connection is open to others or a link
leads nowhere (`production.py`), and says which one; keys that it does not need (`processes.py`) it
does not have. What is secret may be in a file: `NAME_FILE`.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec

from shared.config.environment import ConfigurationError
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
# And one from 0x80.
DEVELOPMENT_UNSUBSCRIBE_KEY = "gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8="
# And from 0xc0.
DEVELOPMENT_PORTAL_KEY = "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t8="
# And from 0xa0.
DEVELOPMENT_TRACKING_KEY = "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8="

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
EmailsOrNone = Annotated[
    str,
    _text(
        r"^([^@\s,]+@[^@\s,]+(\s*,\s*[^@\s,]+@[^@\s,]+)*)?$", "email addresses, separated by commas"
    ),
]
HostAndPort = Annotated[str, _text(r"^([^:\s]+:[0-9]{1,5})?$", "a host and a port, host:port")]


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """Everything that can be set, by the environment variable of the same name in capitals.

    `docs/configuration.md` is made from this: the comments are its headings, and what stands under
    a field is its meaning.
    """

    # General
    environment: Literal["development", "test", "production"] = "development"
    """`development`, `test` or `production`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` for machines."""
    health_file: str = ""
    """A consumer or the relay writes into it, each second, how it stands; `deploy/alive` and
    `python -m shared.health` exit 0 while it is at work, and say else why not."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Port of a process's metrics page; `0` is none. The ingress has `/metrics` on its own port
    instead."""
    metrics_host: str = "127.0.0.1"
    """Address it listens on; never one that the outside can reach."""
    otel_exporter_otlp_endpoint: WebAddressOrNone = ""
    """OpenTelemetry collector that gets traces by HTTP, such as `http://collector:4318`; see
    [tracing.md](tracing.md)."""

    # Servers
    amqp_url: str = "amqp://guest:guest@127.0.0.1:5672/"
    """RabbitMQ, with the service's user; `amqps://` for TLS. Of a cluster the addresses of several
    nodes, separated by `;`, with one user and virtual host: while one is away the next is used."""
    amqp_order: Literal["listed", "shuffled"] = "listed"
    """Which of several is tried first: `listed`, as they stand there, or `shuffled`, in an order
    that each start of a process draws, so that all of them are spread over the nodes."""
    amqp_password: str = ""
    """Put into `AMQP_URL`, which then names a user alone."""
    database_url: str = "postgresql+psycopg2://postgres@127.0.0.1:5432/order_fellow"
    """PostgreSQL; must start with `postgresql+psycopg2://`. A pooler between has to pool sessions,
    since listening and locks last as long as one, and to pass `options` on."""
    database_password: str = ""
    """Put into `DATABASE_URL` likewise."""
    database_pool_size: Count = 10
    """Connections a process keeps at most; an ingress worker and the console two more, to count."""
    database_connect_timeout: Seconds = 5.0
    """Seconds."""
    amqp_heartbeat: Annotated[int, msgspec.Meta(ge=5, le=600)] = 30
    """Seconds, 5 to 600."""

    # Setting the servers up
    service_passwords: str = ""
    """For the two set-up steps alone: `ingress=...,kyc=...`, a password for each service's user
    on the broker and role in the database."""
    operator_passwords: str = ""
    """For the topology step alone: `ada=...,ola=...`, a user of the broker for each operator,
    who may publish `kyc.decide` and nothing else."""
    rabbitmq_management_url: WebAddressOrNone = ""
    """For the topology step alone: where it makes those users, such as
    `http://rabbitmq:15672`."""

    unprotected_hosts: str = ""
    """Hosts that production may speak to without TLS, separated by commas, since nobody else is
    on the network to them; without it every `amqp://`, `sslmode` below `require`, `http://` and
    mail server without STARTTLS on another machine is refused."""

    # Keys
    secret_encryption_keys: str = DEVELOPMENT_ENCRYPTION_KEY
    """Keys that seal webhook secrets at rest, separated by commas: the first seals, all
    open."""
    one_time_code_keys: str = DEVELOPMENT_CODE_KEY
    """Keys of one-time codes, 32 bytes in base64 each, separated by commas: the first seals
    those that are mailed and hashes those that are stored, all open and verify."""
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
    """Keys of the links by which customers leave, and of the hashes that those are known by who
    have left, 32 bytes in base64 each, separated by commas: the first signs and hashes, all verify
    and find."""
    portal_keys: str = DEVELOPMENT_PORTAL_KEY
    """Keys that seal what the portal holds of those who are signed in to it, 32 bytes in base64
    each, separated by commas: the first seals, all open."""
    tracking_keys: str = DEVELOPMENT_TRACKING_KEY
    """Keys of the links to orders in customers' emails, 32 bytes in base64 each, separated by
    commas: the first signs, all verify."""
    access_token_seconds: Seconds = 600.0
    """Life of an access token; less than a refresh token's."""
    refresh_token_seconds: Seconds = 86_400.0
    """Life of a refresh token."""
    session_seconds: Count = 2_592_000
    """Life of a sign-in, however often it is renewed."""

    # Ingress
    host: str = "127.0.0.1"
    """Address the ingress listens on."""
    port: Port = 8000
    """Port the ingress listens on."""
    web_concurrency: Count = 2
    """Ingress workers."""
    public_url: WebAddress = "http://127.0.0.1:8000"
    """Where the API is for the outside; emails and OpenAPI say so. Production takes `https://`
    alone, and no address of this machine."""
    security_contact: Contact = ""
    """Whom to tell of a weakness, such as `mailto:security@shop.example`: in
    `/.well-known/security.txt`, which is not there while this is empty."""
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    """How many proxies stand in front and add to `X-Forwarded-For`."""
    clients_connect_directly: bool = False
    """Says that no proxy stands in front. Else production refuses `TRUSTED_PROXIES=0`, with which
    all clients of a proxy are one, and share its limits ([proxies.md](proxies.md))."""
    max_body_bytes: Count = 262_144
    """Largest webhook body."""
    request_seconds: Seconds = 10.0
    """How long a request may take to arrive, and a client may take nothing of its answer."""
    max_outstanding_confirms: Count = 5_000
    """Orders a worker may have on their way; beyond it the answer is 503."""
    confirm_timeout: Seconds = 2.0
    """Seconds a confirm may take before the order goes to the outbox."""
    account_rate_per_second: Count = 5_000
    """Orders an account may send, a worker."""
    address_refusals_per_minute: Count = 600
    """Refused webhooks an address may cause, a worker."""
    sign_in_attempts_per_minute: Count = 30
    """Registrations, and codes asked for, by a network (an IPv4 address, a /64 of IPv6), a
    worker and route; wrong sign-ins and codes in all workers. An account's own networks are let
    through."""
    tracking_views_per_minute: Count = 60
    """Looks at one order by its customer's link, and at the page to leave by, from anywhere; links
    that lead to none from a network; a worker."""
    account_attempts_per_minute: Count = 10
    """Wrong sign-ins and codes for one account, from all networks that it was not used from, and
    for one user of the console, from browsers that are not known; an hour has 45 and 20 of them.
    And of each thing that a session can change so many changes, a worker."""
    secret_poll_seconds: Seconds = 1.0
    """How stale a worker's secrets may get while the bus is away."""

    # Ops console
    ops_port: Port = 8001
    """Port the ops console listens on, at `HOST`."""
    ops_idle_seconds: Seconds = 1_800.0
    """A console session ends after so long without a request."""
    ops_session_seconds: Seconds = 43_200.0
    """And after so long in any case."""
    ops_second_factor: Literal["optional", "required"] = "optional"
    """Whether everybody needs a second factor at the console: `optional` or `required`, which
    it is in compose; see [console.md](console.md#a-second-factor)."""

    # Alerts
    alert_email_to: EmailsOrNone = ""
    """Who is told of troubles by email, addresses separated by commas; see
    [operations.md](operations.md#alerts)."""
    alert_webhook_url: WebAddressOrNone = ""
    """An incoming webhook of Slack, a workflow of Teams, or anything else that takes JSON with a
    `text`. A secret: whoever has it can write there."""
    alert_after_seconds: Seconds = 60.0
    """For how long a trouble must last before anybody is told."""
    alert_remind_seconds: Seconds = 14_400.0
    """After how long who is told is reminded of one that nobody has acknowledged."""

    # Portal
    portal_port: Port = 8002
    """Port the portal listens on, at `HOST`."""
    portal_api_url: WebAddress = "http://127.0.0.1:8000"
    """Where the portal finds the API: an ingress itself and no proxy before it, since the portal
    says whose request it is as a proxy does, by `X-Forwarded-For`."""
    tracking_url: WebAddressOrNone = ""
    """Where customers see their order, such as `https://portal.shop.example/track`, a page of the
    portal; while it is empty, emails have no link. In production as `PUBLIC_URL`."""

    # The standing proof
    proof_url: WebAddress = "http://127.0.0.1:8000"
    """Where the standing proof sends its orders; in compose the door."""
    proof_port: Port = 2525
    """Where the standing proof takes its emails."""
    proof_seconds: Seconds = 60.0
    """Seconds from one proof to the next."""
    proof_sink: HostAndPort = ""
    """Where the notifier gives the standing proof's emails, `host:port`; in compose
    `proof:2525`."""

    # KYC
    kyc_approvals_required: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """How many operators, each by name, must decide the same before an approval or a revocation
    takes effect; see [console.md](console.md#two-persons)."""
    kyc_approval_days: Count = 7
    """How long one's decision waits for the others'."""
    kyc_unnamed_decisions: Literal["", "take", "refuse"] = ""
    """`refuse` or `take` decisions that the broker vouches for no person of; empty is `refuse`
    in production, else `take`."""

    # Webhook secrets
    secret_lifetime_days: Count = 90
    """Life of a webhook secret."""
    secret_rotate_ahead_days: Count = 14
    """How long before its end the next one is made; less than its life."""
    secret_warn_ahead_days: Count = 3
    """How long before the end of a replaced one the business is reminded; less than its life."""
    secret_schedule_seconds: Seconds = 15.0
    """Between two looks for what is due."""

    # Consumers
    order_batch_size: Count = 500
    """Orders recorded in one transaction."""
    account_email_burst: Count = 1_000
    """Order emails an account may cause at once, a recorder; what is beyond waits in
    `notifier.bulk`."""
    account_emails_per_second: Count = 100
    """Order emails an account may cause for ever before they go there."""
    account_updates_waiting: Count = 10_000
    """Status updates of an account, a recorder, that may come back for four hours because their
    order is not known; what is beyond is given up at once, and told to its sender."""
    email_batch_size: Count = 64
    """Emails sent between two commits."""
    recipient_emails_per_day: Count = 500
    """Order emails of one account to one address in a day, each queue of a notifier; what is
    beyond is kept as undeliverable and not sent."""

    # Customers' data
    retention_orders_days: Days = 730
    """After which an order ends, with its history and conflicts: counted from when it was
    recorded, or from what its sender stamped last. 0 is for ever, here and below; production
    refuses it ([privacy.md](privacy.md))."""
    retention_test_orders_days: Days = 30
    """After which a test order ends that its business has not cleared."""
    retention_history_days: Days = 365
    """After which the note of a status ends."""
    retention_conflicts_days: Days = 90
    """After which a conflicting order ends."""
    retention_deliveries_days: Days = 365
    """After which it is forgotten that an email was sent."""
    retention_request_log_days: Days = 30
    """Days of the request log."""
    retention_dead_letters_days: Days = 90
    """After which a dead letter that nobody dealt with is discarded."""
    retention_unproved_days: Days = 1
    """After which a registration ends whose address nobody proved."""
    retention_known_networks_days: Days = 365
    """After which a network counts as an account's no longer that it was not used from."""
    retention_sessions_days: Days = 1
    """After which it is forgotten that a session was there which has ended."""
    backup_days: Days = 0
    """For how long you keep backups of the database, which `fellow customer` tells; 0: not
    known."""

    # Email
    smtp_host: str = "127.0.0.1"
    """Mail server."""
    smtp_port: Port = 1025
    """Its port."""
    smtp_starttls: bool = False
    """`true` asks for TLS and verifies the certificate."""
    smtp_username: str = ""
    """Signs in when set."""
    smtp_password: str = ""
    """With this password."""
    smtp_timeout: Seconds = 300.0
    """Seconds for the greeting and for each command (RFC 5321, 4.5.3.2); a machine that does
    not answer at all is given up after 30."""
    smtp_content_timeout: Seconds = 600.0
    """Seconds for the reply to an email's content; with less, one that was taken late goes out
    twice."""
    smtp_connections: Count = 4
    """Connections kept open for order emails; up to 28 more while the server thinks about one
    each."""
    smtp_bulk_connections: Count = 2
    """Connections kept open for those that wait in `notifier.bulk`."""
    email_from: str = "Order Fellow <no-reply@order-fellow.example>"
    """The From header."""

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
