"""Rehearsals of dead letters, gone when they are read; troubles, and what people said of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    # Unlogged: what is a person's in it is in no log, standby or base backup.
    op.create_table(
        "rehearsals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("taken_at", sa.DateTime(timezone=True)),
        sa.Column("report", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rehearsals")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "ops_troubles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("about", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.Text(), server_default="", nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("muted_by", sa.Text(), server_default="", nullable=False),
        sa.Column("muted_until", sa.DateTime(timezone=True)),
        sa.Column("told", JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ops_troubles")),
    )
    op.create_index(
        "ix_ops_troubles_open",
        "ops_troubles",
        ["key"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("ops_troubles")
    op.drop_table("rehearsals")
