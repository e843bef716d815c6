"""Guesses at the console are counted in the database; emails that a server thinks about, leased."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "ops_attempt_counts",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_ops_attempt_counts")),
    )
    op.create_index(op.f("ix_ops_attempt_counts_ends_at"), "ops_attempt_counts", ["ends_at"])
    op.create_table(
        "email_leases",
        sa.Column("fact_id", sa.Uuid(), nullable=False),
        sa.Column("good_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fact_id", name=op.f("pk_email_leases")),
    )
    op.add_column(
        "ops_second_factors",
        sa.Column("wrong_codes", sa.Integer(), server_default="0", nullable=False),
    )


def downgrade() -> None:
    op.drop_table("email_leases")
    op.drop_column("ops_second_factors", "wrong_codes")
    op.drop_table("ops_attempt_counts")
