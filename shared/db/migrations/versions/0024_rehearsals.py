"""Rehearsals of dead letters: asked for by ops staff, made by services, gone when read."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


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


def downgrade() -> None:
    op.drop_table("rehearsals")
