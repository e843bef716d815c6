"""The settings that each process reads: what its container is given and checks at its start.

Each key is given to as few containers as possible, because reading a container's environment
reveals its keys.
"""

from collections.abc import Mapping

KEYS = (
    "SECRET_ENCRYPTION_KEYS",
    "ONE_TIME_CODE_KEYS",
    "SECOND_FACTOR_KEYS",
    "JWT_SIGNING_KEY",
    "RECEIPT_SIGNING_KEYS",
    "UNSUBSCRIBE_KEYS",
    "PORTAL_KEYS",
    "TRACKING_KEYS",
)
"""Lists of keys, separated by commas: the first seals or signs, all open or verify."""

_COMMON = ("ENVIRONMENT", "LOG_LEVEL", "LOG_FORMAT", "UNPROTECTED_HOSTS")
_BUS = ("AMQP_URL", "AMQP_ORDER", "AMQP_PASSWORD", "AMQP_HEARTBEAT")
_DATABASE = ("DATABASE_URL", "DATABASE_PASSWORD", "DATABASE_POOL_SIZE", "DATABASE_CONNECT_TIMEOUT")
_SERVER = (*_COMMON, "OTEL_EXPORTER_OTLP_ENDPOINT", *_BUS, *_DATABASE)
_CONSUMER = (*_SERVER, "HEALTH_FILE", "METRICS_PORT", "METRICS_HOST")
_HTTP = (*_SERVER, "HOST", "TRUSTED_PROXIES", "REQUEST_SECONDS")
_HTTP_LIMITS = ("SIGN_IN_ATTEMPTS_PER_MINUTE", "ACCOUNT_ATTEMPTS_PER_MINUTE")
_MAIL = ("SMTP_HOST", "SMTP_PORT", "SMTP_STARTTLS")
_RETENTION = tuple(
    f"RETENTION_{place}_DAYS"
    for place in (
        "ORDERS",
        "TEST_ORDERS",
        "HISTORY",
        "CONFLICTS",
        "DELIVERIES",
        "REQUEST_LOG",
        "DEAD_LETTERS",
        "UNPROVED",
        "KNOWN_NETWORKS",
        "SESSIONS",
    )
)

READS: Mapping[str, tuple[str, ...]] = {
    "ingress": (
        *_HTTP,
        *_HTTP_LIMITS,
        "CLIENTS_CONNECT_DIRECTLY",
        "SECRET_ENCRYPTION_KEYS",
        "ONE_TIME_CODE_KEYS",
        "JWT_SIGNING_KEY",
        "RECEIPT_SIGNING_KEYS",
        "UNSUBSCRIBE_KEYS",
        "TRACKING_KEYS",
        "TRACKING_URL",
        "PUBLIC_URL",
        "ACCESS_TOKEN_SECONDS",
        "REFRESH_TOKEN_SECONDS",
        "SESSION_SECONDS",
        "PORT",
        "SECURITY_CONTACT",
        "WEB_CONCURRENCY",
        "MAX_BODY_BYTES",
        "MAX_OUTSTANDING_CONFIRMS",
        "CONFIRM_TIMEOUT",
        "ACCOUNT_RATE_PER_SECOND",
        "ADDRESS_REFUSALS_PER_MINUTE",
        "TRACKING_VIEWS_PER_MINUTE",
        "SECRET_POLL_SECONDS",
        "INTAKE_SHARDS",
        "RETENTION_REQUEST_LOG_DAYS",
        "RETENTION_UNPROVED_DAYS",
        "RETENTION_KNOWN_NETWORKS_DAYS",
        "RETENTION_SESSIONS_DAYS",
    ),
    "kyc": (*_CONSUMER, "KYC_APPROVALS_REQUIRED", "KYC_APPROVAL_DAYS", "KYC_UNNAMED_DECISIONS"),
    "secrets": (
        *_CONSUMER,
        "SECRET_ENCRYPTION_KEYS",
        "SECRET_LIFETIME_DAYS",
        "SECRET_ROTATE_AHEAD_DAYS",
        "SECRET_WARN_AHEAD_DAYS",
        "SECRET_SCHEDULE_SECONDS",
    ),
    "orders": (
        *_CONSUMER,
        "INTAKE_SHARDS",
        "ORDER_BATCH_SIZE",
        "ACCOUNT_EMAIL_BURST",
        "ACCOUNT_EMAILS_PER_SECOND",
        "ACCOUNT_UPDATES_WAITING",
        "RETENTION_ORDERS_DAYS",
        "RETENTION_TEST_ORDERS_DAYS",
        "RETENTION_HISTORY_DAYS",
        "RETENTION_CONFLICTS_DAYS",
    ),
    "notifier": (
        *_CONSUMER,
        "ONE_TIME_CODE_KEYS",
        "UNSUBSCRIBE_KEYS",
        "TRACKING_KEYS",
        "TRACKING_URL",
        "PUBLIC_URL",
        "EMAIL_BATCH_SIZE",
        "RECIPIENT_EMAILS_PER_DAY",
        *_MAIL,
        "SMTP_USERNAME",
        "SMTP_PASSWORD",
        "SMTP_TIMEOUT",
        "SMTP_CONTENT_TIMEOUT",
        "SMTP_CONNECTIONS",
        "SMTP_BULK_CONNECTIONS",
        "EMAIL_FROM",
        "PROOF_SINK",
        "RETENTION_DELIVERIES_DAYS",
    ),
    "audit": _CONSUMER,
    "relay": (*_CONSUMER, "INTAKE_SHARDS"),
    # Also for `fellow`, which runs in the same container.
    "ops": (
        *_HTTP,
        *_HTTP_LIMITS,
        *_MAIL,
        "SMTP_USERNAME",
        "SMTP_PASSWORD",
        "EMAIL_FROM",
        "ALERT_EMAIL_TO",
        "ALERT_WEBHOOK_URL",
        "ALERT_AFTER_SECONDS",
        "ALERT_REMIND_SECONDS",
        "KYC_APPROVALS_REQUIRED",
        "METRICS_PORT",
        "METRICS_HOST",
        "OPS_PORT",
        "OPS_IDLE_SECONDS",
        "OPS_SESSION_SECONDS",
        "OPS_SECOND_FACTOR",
        "SECOND_FACTOR_KEYS",
        "RABBITMQ_MANAGEMENT_URL",
        "INTAKE_SHARDS",
        "BACKUP_DAYS",
        # It discards dead letters, and counts what other services will remove.
        *_RETENTION,
    ),
    # No broker, and only its own sessions in the database: the rest comes from the API.
    "portal": (
        *_COMMON,
        *_DATABASE,
        "HOST",
        "TRUSTED_PROXIES",
        "CLIENTS_CONNECT_DIRECTLY",
        "PUBLIC_URL",
        "REQUEST_SECONDS",
        "METRICS_PORT",
        "METRICS_HOST",
        "PORTAL_PORT",
        "PORTAL_API_URL",
        "PORTAL_KEYS",
    ),
    # No broker: like any business, it uses HTTP and email.
    "proof": (
        *_COMMON,
        *_DATABASE,
        "HOST",
        "HEALTH_FILE",
        "METRICS_PORT",
        "METRICS_HOST",
        "PROOF_URL",
        "PROOF_PORT",
        "PROOF_SECONDS",
    ),
    "migrations": (*_COMMON, "DATABASE_URL", "DATABASE_PASSWORD", "SERVICE_PASSWORDS"),
    "topology": (
        *_COMMON,
        "AMQP_URL",
        "AMQP_PASSWORD",
        "RABBITMQ_MANAGEMENT_URL",
        "INTAKE_SHARDS",
        "SERVICE_PASSWORDS",
        "OPERATOR_PASSWORDS",
    ),
}
