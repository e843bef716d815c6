"""A command is known by what it says too; why a shop cancels what is waited for is erased."""

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"

_AFTER = "place := 'waiting_updates'; RETURN NEXT;"
# An order that is waited for is known by its id alone: whose it is nobody knows, but by the words.
_ERASE = f"""{_AFTER}

        UPDATE public.awaited_orders
        SET cancel_reason = regexp_replace(cancel_reason, mention, '[erased]', 'gi')
        WHERE cancel_reason ~* mention;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'awaited_orders'; RETURN NEXT;"""  # noqa: S608 - our own text
_shops = import_module("shared.db.migrations.versions.0038_what_shops_send")


def upgrade() -> None:
    op.add_column("inbox", sa.Column("digest", sa.LargeBinary(), nullable=True))
    _shops._replace("erase_customer(text)", _AFTER, _ERASE)


def downgrade() -> None:
    _shops._replace("erase_customer(text)", _ERASE, _AFTER)
    op.drop_column("inbox", "digest")
