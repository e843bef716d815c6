"""Where an application needs several operators: who has decided on it, until enough have.

A table of its own: the version before, while it still runs, decides alone and does not look here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "kyc_decisions",
        sa.Column("application_id", sa.Uuid(), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("needed", sa.SmallInteger(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "decision IN ('approve', 'revoke')", name=op.f("ck_kyc_decisions_decision")
        ),
        sa.ForeignKeyConstraint(
            ["application_id"],
            ["kyc_applications.id"],
            name=op.f("fk_kyc_decisions_application_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "application_id", "decision", "person", name=op.f("pk_kyc_decisions")
        ),
    )


def downgrade() -> None:
    op.drop_table("kyc_decisions")
