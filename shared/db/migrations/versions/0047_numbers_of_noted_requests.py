"""The request log says which order of a shop it was that nothing is recorded of.

The number is its customer's as that of a recorded order is, and erased with it.
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"

_KEYS = """UPDATE public.webhook_requests SET idempotency_key = NULL
        WHERE strpos(lower(idempotency_key), wanted) > 0;"""
# Of an order that is recorded under a former id the log may have another one.
_KEYS_AND_NUMBERS = """UPDATE public.webhook_requests AS request
        SET order_number = NULL, idempotency_key = CASE
            WHEN strpos(lower(idempotency_key), wanted) > 0 THEN NULL
            ELSE idempotency_key END
        WHERE strpos(lower(idempotency_key), wanted) > 0
           OR (request.order_number IS NOT NULL
               AND (request.order_id = ANY(theirs) OR request.order_number ~* mention
                    OR EXISTS (SELECT FROM public.orders
                               WHERE id = ANY(theirs) AND account_id = request.account_id
                                 AND orders.order_number = request.order_number)));"""


def upgrade() -> None:
    op.add_column("webhook_requests", sa.Column("order_number", sa.Text(), nullable=True))
    _replace(_KEYS, _KEYS_AND_NUMBERS)


def downgrade() -> None:
    _replace(_KEYS_AND_NUMBERS, _KEYS)
    op.drop_column("webhook_requests", "order_number")


def _replace(before: str, after: str) -> None:
    shops = import_module("shared.db.migrations.versions.0038_what_shops_send")
    shops._replace("erase_customer(text)", before, after)
