"""A day of the request log is dropped when it is over by the database's clock and the ingress'.

By the database's alone, which may have jumped a month ahead, the whole log went, and the receipts
of all orders with it. The function of the version before stays for its workers.
"""

from importlib import import_module

from alembic import op

revision = "0050"
down_revision = "0049"

_BEFORE = "shared.db.migrations.versions.0012_customers_data_ends"
_FUNCTION = "keep_webhook_request_partitions(integer, timestamptz)"


def upgrade() -> None:
    function: str = import_module(_BEFORE)._KEEP_PARTITIONS
    for now, then in (
        ("(keep_days integer)", "(keep_days integer, host timestamptz)"),
        # It can only keep more: whoever has taken the ingress over drops no day by it.
        ("to_char(today - ", "to_char(least(today, CAST(host AS date)) - "),
        ("SET search_path = pg_catalog", "SET search_path = pg_catalog, pg_temp"),
    ):
        function = function.replace(now, then)
    op.execute(function)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {_FUNCTION} FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {_FUNCTION}")
