"""Ops staff: second factors, rights instead of two roles, and sessions that can be told apart.

A sign-in that waits for its code is a session that the console does not take for one. Whoever could
act has every right. The console of the version before reads `role`, and goes on doing so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


ALL = "'{kyc,messages,customers}'::varchar[]"


def upgrade() -> None:
    op.add_column(
        "ops_users",
        sa.Column("rights", sa.ARRAY(sa.String(16)), server_default="{}", nullable=False),
    )
    op.execute(f"UPDATE ops_users SET rights = {ALL} WHERE role = 'act'")  # noqa: S608 - ours
    op.drop_constraint(op.f("ck_ops_users_role"), "ops_users")
    op.drop_column("ops_users", "role")
    as_role = f"CASE WHEN rights @> {ALL} THEN 'act' ELSE 'watch' END"
    op.add_column(
        "ops_users",
        sa.Column("role", sa.String(16), sa.Computed(as_role, persisted=True), nullable=False),
    )
    op.create_check_constraint(op.f("ck_ops_users_rights"), "ops_users", f"rights <@ {ALL}")
    op.add_column(
        "ops_sessions",
        sa.Column("awaits_code", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    made = sa.text("gen_random_uuid()")
    op.add_column("ops_sessions", sa.Column("id", sa.Uuid(), server_default=made, nullable=False))
    op.create_unique_constraint(op.f("uq_ops_sessions_id"), "ops_sessions", ["id"])
    for name in ("network", "client"):
        op.add_column("ops_sessions", sa.Column(name, sa.Text(), server_default="", nullable=False))
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
    for name in ("awaits_code", "id", "network", "client"):
        op.drop_column("ops_sessions", name)
    op.drop_column("ops_users", "role")
    op.add_column(
        "ops_users", sa.Column("role", sa.String(16), server_default="watch", nullable=False)
    )
    op.execute(f"UPDATE ops_users SET role = 'act' WHERE rights @> {ALL}")  # noqa: S608 - ours
    op.alter_column("ops_users", "role", server_default=None)
    op.create_check_constraint(op.f("ck_ops_users_role"), "ops_users", "role IN ('watch', 'act')")
    op.drop_constraint(op.f("ck_ops_users_rights"), "ops_users")
    op.drop_column("ops_users", "rights")
