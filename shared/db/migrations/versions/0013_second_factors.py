"""Second factors of ops staff.

Tables of their own, and a sign-in that waits for its code is a session that the console does not
take for one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ops_sessions",
        sa.Column("awaits_code", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_table(
        "ops_second_factors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("offered", sa.LargeBinary(), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_step", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["ops_users.id"],
            name=op.f("fk_ops_second_factors_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_ops_second_factors")),
    )
    op.create_table(
        "ops_recovery_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["ops_users.id"],
            name=op.f("fk_ops_recovery_codes_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_ops_recovery_codes")),
    )


def downgrade() -> None:
    # What waits for its code would be a session to the version before.
    op.execute("DELETE FROM ops_sessions WHERE awaits_code")
    op.drop_table("ops_recovery_codes")
    op.drop_table("ops_second_factors")
    op.drop_column("ops_sessions", "awaits_code")
