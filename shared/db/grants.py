"""Database privileges: one role per service with the least rights that it needs.

They enforce rule 4 of the architecture, "a table has one writer". The public app runs the routes of
four services, and so has the rights of their HTTP sides.

Applied after the migrations, each time they run.
"""

from collections.abc import Mapping

from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text

from shared.config.environment import ConfigurationError
from shared.security.service_accounts import SERVICES, login

# For services other than services.accounts: everything but the password hash.
ACCOUNT = "SELECT (id, company_name, email, email_verified_at, closed_at, created_at)"
INBOX = "SELECT, INSERT, UPDATE, DELETE"  # UPDATE: to lock rows for pruning
# Add a message for the relay; its writer and its publication state are not the writer's to set.
OUTBOX = (
    "INSERT (message_id, exchange, routing_key, type, correlation_id, source, traceparent, "
    "time, body)"
)
# Restricted to the service's own rows (migration 0037); DELETE: rows of former instances.
HEARTBEATS = "SELECT, INSERT, UPDATE, DELETE"
# Restricted to dry runs of messages in the service's own queues.
REHEARSALS = "SELECT, UPDATE (taken_at, report), DELETE"

GRANTS: Mapping[str, Mapping[str, str]] = {
    "ingress": {
        "accounts": "SELECT, INSERT, UPDATE",
        "pending_proofs": "SELECT, INSERT, UPDATE, DELETE",
        "email_senders": "SELECT, INSERT, UPDATE",
        "account_sessions": "SELECT, INSERT, UPDATE, DELETE",
        "known_networks": "SELECT, INSERT, UPDATE (last_used_at), DELETE",
        "attempt_counts": "SELECT, INSERT, UPDATE, DELETE",
        "one_time_codes": "SELECT, INSERT, UPDATE, DELETE",
        "revoked_tokens": "SELECT, INSERT, DELETE",  # written by earlier versions, which may run
        "kyc_applications": "SELECT, INSERT",
        "webhook_secrets": "SELECT, INSERT, UPDATE",
        "webhook_public_keys": "SELECT, INSERT, UPDATE (state, revoked_at)",
        "webhook_requests": "SELECT, INSERT",
        "webhook_secret_use": "SELECT, INSERT, UPDATE",
        # The business's own restrictions; those of ops staff are written by services.secrets.
        "webhook_policies": (
            "SELECT, INSERT (account_id, allowed_networks, standard_webhooks_only), "
            "UPDATE (allowed_networks, standard_webhooks_only)"
        ),
        "orders": "SELECT",
        "order_status_history": "SELECT",
        "order_conflicts": "SELECT",
        "removed_orders": "SELECT",
        "waiting_updates": "SELECT",
        "email_deliveries": "SELECT",
        "suppressions": "SELECT, INSERT, DELETE",  # the HTTP side of services.notifier
        "audit_log": "SELECT (sequence, type, happened_at, correlation_id, data)",
        "outbox": OUTBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "kyc": {
        "accounts": ACCOUNT,
        "kyc_applications": "SELECT, UPDATE",
        "kyc_decisions": "SELECT, INSERT, UPDATE",
        "ops_users": "SELECT (id, name)",
        "rehearsals": REHEARSALS,
        "webhook_secrets": "SELECT (id, revoked_with)",
        "webhook_public_keys": "SELECT (id, revoked_with)",
        "inbox": INBOX,
        "outbox": OUTBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "secrets": {
        "accounts": ACCOUNT,
        "kyc_applications": "SELECT",
        "webhook_secrets": "SELECT, INSERT, UPDATE",
        "webhook_public_keys": "SELECT, UPDATE (state, revoked_at)",
        "rehearsals": REHEARSALS,
        "webhook_secret_use": "SELECT",
        "webhook_policies": (
            "SELECT, INSERT (account_id, rate_per_second, blocked_at), "
            "UPDATE (rate_per_second, blocked_at)"
        ),
        "inbox": INBOX,
        "outbox": OUTBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "orders": {
        "accounts": "SELECT (id, company_name, email)",
        # DELETE, and UPDATE of note and tracking: for retention (shared/db/retention.py).
        "orders": "SELECT, INSERT, UPDATE, DELETE",
        "order_status_history": "SELECT, INSERT, UPDATE (note, tracking, applied), DELETE",
        "order_conflicts": "SELECT, INSERT, UPDATE (at), DELETE",  # UPDATE: to lock
        "waiting_updates": "SELECT, INSERT, UPDATE (given_up_at), DELETE",
        "awaited_orders": (
            "SELECT, INSERT, "
            "UPDATE (since, cancelled_at, cancelled_by, cancel_reason, cancelled_before), DELETE"
        ),
        "removed_orders": "SELECT, INSERT",
        "rehearsals": REHEARSALS,
        "inbox": INBOX,
        "outbox": OUTBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "notifier": {
        "accounts": "SELECT (id, company_name, email, closed_at)",
        "email_senders": "SELECT",
        "suppressions": "SELECT, INSERT, UPDATE, DELETE",
        "webhook_policies": "SELECT (account_id, blocked_at)",
        # To check whether the customer was erased, and for the order number.
        "orders": "SELECT (id, customer_email, order_number)",
        "email_deliveries": "SELECT, INSERT, UPDATE, DELETE",
        "email_leases": "SELECT, INSERT, UPDATE, DELETE",
        "refusal_warnings": "SELECT, INSERT, UPDATE, DELETE",
        "rehearsals": REHEARSALS,
        "inbox": INBOX,
        "outbox": OUTBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "relay": {
        # UPDATE also locks rows that are being published.
        "outbox": "SELECT, UPDATE (attempts, next_try_at, parked_at, reason), DELETE",
        "service_heartbeats": HEARTBEATS,
    },
    "audit": {
        "audit_log": "SELECT, INSERT",
        "rehearsals": REHEARSALS,
        "inbox": INBOX,
        "service_heartbeats": HEARTBEATS,
    },
    "ops": {
        "accounts": ACCOUNT,
        "pending_proofs": "SELECT (id, created_at, code_expires_at)",
        "known_networks": "SELECT (id, last_used_at)",
        "account_sessions": "SELECT (id, ended_at, expires_at)",
        "kyc_applications": "SELECT",
        "kyc_decisions": "SELECT",
        "kyc_notes": "SELECT, INSERT (id, application_id, written_by, note)",
        "webhook_secrets": (
            "SELECT (id, account_id, platform, shop, is_test, state, issued_at, expires_at, "
            "replaced_at, revoked_at)"
        ),
        "webhook_public_keys": "SELECT",
        "webhook_requests": "SELECT",
        "webhook_secret_use": "SELECT",
        "webhook_policies": "SELECT",
        "orders": "SELECT",
        "order_status_history": "SELECT",
        "order_conflicts": "SELECT",
        "waiting_updates": "SELECT",
        "awaited_orders": "SELECT",
        "email_deliveries": "SELECT",
        "email_senders": "SELECT",
        "suppressions": "SELECT",
        "inbox": "SELECT",
        # A trigger limits changes and deletions to parked messages.
        "outbox": f"SELECT, {OUTBOX}, UPDATE (correlation_id, body, next_try_at), DELETE",
        "audit_log": "SELECT",
        "service_heartbeats": "SELECT",
        "ops_users": "SELECT, INSERT, UPDATE, DELETE",
        "ops_sessions": "SELECT, INSERT, UPDATE, DELETE",
        "ops_second_factors": "SELECT, INSERT, UPDATE, DELETE",
        "ops_recovery_codes": "SELECT, INSERT, DELETE",
        "ops_attempt_counts": "SELECT, INSERT, UPDATE, DELETE",
        "ops_troubles": "SELECT, INSERT, UPDATE, DELETE",
        "rehearsals": "SELECT, INSERT (id, queue, message), DELETE",
        "alembic_version": "SELECT",
    },
    # It reads everything from the API with the signed-in user's token.
    "portal": {
        "portal_sessions": "SELECT, INSERT, UPDATE, DELETE",
        "service_heartbeats": HEARTBEATS,
    },
    # It acts as a business through the API and only writes its heartbeat.
    "proof": {"service_heartbeats": HEARTBEATS},
}

FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "ingress": (
        "keep_webhook_request_partitions(integer, timestamp with time zone)",
        "keep_webhook_request_partitions(integer)",  # earlier versions: workers may still run
        "keep_webhook_request_partitions()",
        "hold_approval(uuid)",
        "clear_test_orders(uuid, integer)",
        "clear_test_orders(uuid)",  # earlier versions: workers may still run
        "sweep_removed_orders(uuid, integer)",
        "end_tracking_links(uuid, uuid)",
    ),
    "kyc": ("hold_open_account(uuid)",),
    "orders": ("sweep_removed_orders(uuid, integer)",),
    "secrets": ("hold_approval(uuid)",),
    "ops": (
        "customer_mention(text)",
        "without_customer(jsonb, text)",
        "mentions_customer(jsonb, text)",
        "body_without_customer(bytea, text)",
        "order_named(text, bytea)",
        "erase_customer(text)",
        "erase_suppressed_address(text)",
        "lift_suppression(uuid)",
    ),
}
"""Functions that each service may execute; trigger functions are granted to no role."""

_TAKE_FROM_PUBLIC = text("""
    DO $$ DECLARE ours regprocedure; BEGIN
        FOR ours IN
            SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            AND pg_has_role(proowner, 'USAGE') AND NOT EXISTS (
                SELECT FROM pg_depend  -- leave the functions of extensions
                WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
        LOOP
            EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', ours);
        END LOOP;
    END $$
""")


def apply(connection: Connection, passwords: Mapping[str, str]) -> None:
    """Create missing roles and set the privileges of each.

    Args:
        connection: in a transaction, as a user that owns the tables and may create roles.
        passwords: login passwords by service. A role without one is left unchanged; a new one
            cannot log in.

    Raises:
        ConfigurationError: roles are missing and the user may not create them.
    """
    _create_missing(connection)
    connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    # EXECUTE is granted to PUBLIC by default, and a role with it can attach a trigger function to
    # its own temporary table, where it runs with the owner's rights. Revoked each time, because a
    # restore into a new server without the roles fails to restore the ACL of functions.
    connection.execute(_TAKE_FROM_PUBLIC)
    for service in SERVICES:
        role = login(service)
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            connection.execute(text(f"REVOKE ALL ON ALL {kind} IN SCHEMA public FROM {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
        for table, privileges in GRANTS[service].items():
            connection.execute(text(f"GRANT {privileges} ON {table} TO {role}"))
        for function in FUNCTIONS.get(service, ()):
            connection.execute(text(f"GRANT EXECUTE ON FUNCTION {function} TO {role}"))
        if OUTBOX in GRANTS[service].get("outbox", ""):
            connection.execute(text(f"GRANT USAGE ON SEQUENCE outbox_sequence_seq TO {role}"))
        if service in passwords:
            _set_password(connection, role, passwords[service])


def _create_missing(connection: Connection) -> None:
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    missing = [login(service) for service in SERVICES if login(service) not in known]
    if not missing:
        return
    may = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    if not connection.execute(may).scalar():
        raise ConfigurationError(
            f"The user of DATABASE_URL may not create the roles {', '.join(missing)}: "
            "let the migrations run as one with CREATEROLE, or create them by hand (NOLOGIN)."
        )
    for role in missing:
        # Roles are cluster-wide: the migration of another database may create them concurrently.
        connection.execute(
            text(
                f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
                "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
            )
        )


def _set_password(connection: Connection, role: str, password: str) -> None:
    # Only the SCRAM verifier is sent, so that no statement log contains a password.
    verifier = encrypt_password(
        password, role, connection.connection.driver_connection, "scram-sha-256"
    )
    connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD %s", (verifier,))
