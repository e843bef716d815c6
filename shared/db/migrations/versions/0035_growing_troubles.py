"""How much a trouble is, and was when somebody took it for known: one that grows is told anew."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    op.add_column(
        "ops_troubles", sa.Column("figure", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("ops_troubles", sa.Column("accepted_figure", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("ops_troubles", "accepted_figure")
    op.drop_column("ops_troubles", "figure")
