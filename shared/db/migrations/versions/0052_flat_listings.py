"""Searches and lists that operators and businesses look at read what they show, and little else."""

from importlib import import_module

from alembic import op

revision = "0052"
down_revision = "0051"

# By name: the table, what of it, of which rows. Built beside those who write: orders never stop.
# None of them is of what an order, its states or its emails add, but for what is rare among those.
INDEXES = {
    "ix_order_conflicts_email": (
        "order_conflicts",
        "lower((event -> 'customer_details') ->> 'email')",
        "WHERE event IS NOT NULL",
    ),
    "ix_email_deliveries_tests_at": (
        "email_deliveries",
        "at",
        r"WHERE template LIKE 'test\_%'",
    ),
    "ix_email_deliveries_unsent_state_at_id": (
        "email_deliveries",
        "state, at, id",
        "WHERE state <> 'sent'",
    ),
    "ix_suppressions_account_id_cause_id": ("suppressions", "account_id, cause, id", ""),
    "ix_kyc_applications_status_submitted_at_id": (
        "kyc_applications",
        "status, submitted_at, id",
        "",
    ),
    "ix_kyc_applications_status_decided": (
        "kyc_applications",
        "status, coalesce(decided_at, submitted_at), id",
        "",
    ),
}
NAMES = "ix_accounts_company_name"
# Those that were not sent are looked for by their state alone: that has an index of its own.
UNREAD = {
    "ix_email_deliveries_unsent_at_id": ("email_deliveries", "at, id", "WHERE state <> 'sent'")
}


def upgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    where = import_module("shared.db.migrations.versions.0051_words_of_the_audit_log")._WHERE
    # Where the extension is missing, a part of a name is looked for name by name, as before.
    found = op.get_bind().exec_driver_sql(where).one_or_none()
    schema, is_usable = found or ("", False)
    names = ("accounts USING gin", f"company_name {schema}.gin_trgm_ops", "")
    with op.get_context().autocommit_block():
        build(INDEXES | ({NAMES: names} if is_usable else {}), UNREAD)


def downgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build(UNREAD)
    for name in (*INDEXES, NAMES):
        op.execute(f"DROP INDEX IF EXISTS {name}")
