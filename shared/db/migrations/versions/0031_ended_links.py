"""The links of an order's emails can be ended.

Adding a column with a constant default rewrites no table (PostgreSQL, ALTER TABLE, "Notes").
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    number = sa.Column("tracking_link", sa.Integer(), server_default=sa.text("0"), nullable=False)
    op.add_column("orders", number)
    op.execute(_END)
    op.execute("REVOKE EXECUTE ON FUNCTION end_tracking_links(uuid, uuid) FROM PUBLIC")


# With the rights of the table's owner: the ingress, whose route asks for it, may write no order.
_END = """
    CREATE FUNCTION end_tracking_links(account uuid, an_order uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        UPDATE public.orders SET tracking_link = tracking_link + 1
        WHERE id = an_order AND account_id = account;
        RETURN FOUND;
    END $$
"""


def downgrade() -> None:
    op.execute("DROP FUNCTION end_tracking_links(uuid, uuid)")
    op.drop_column("orders", "tracking_link")
