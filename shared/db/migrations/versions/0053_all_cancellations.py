"""All cancellations count of an order that waits to be placed, and not the last one alone."""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0053"
down_revision = "0052"

_BEFORE = """
        SET cancel_reason = regexp_replace(cancel_reason, mention, '[erased]', 'gi')
        WHERE cancel_reason ~* mention;"""
_AFTER = """
        SET cancel_reason = regexp_replace(cancel_reason, mention, '[erased]', 'gi'),
            cancelled_before = public.without_customer(cancelled_before, mention)
        WHERE cancel_reason ~* mention OR public.mentions_customer(cancelled_before, mention);"""
_shops = import_module("shared.db.migrations.versions.0038_what_shops_send")


def upgrade() -> None:
    op.add_column("awaited_orders", sa.Column("cancelled_before", JSONB(), nullable=True))
    _shops._replace("erase_customer(text)", _BEFORE, _AFTER)


def downgrade() -> None:
    _shops._replace("erase_customer(text)", _AFTER, _BEFORE)
    op.drop_column("awaited_orders", "cancelled_before")
