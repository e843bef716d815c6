"""What became of a row of the outbox stands in the row, and who wrote it; short strings are short.

A relay of the version before goes on working beside this: it takes every row, also a parked one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SHORT = ("exchange", "routing_key", "type", "correlation_id", "source", "traceparent")


def upgrade() -> None:
    op.add_column("outbox", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("outbox", sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("reason", sa.Text(), server_default="", nullable=False))
    # No writer may name this column (see grants.py), so that it says who it was.
    op.add_column(
        "outbox",
        sa.Column("written_by", sa.Text(), server_default=sa.text("CURRENT_USER"), nullable=False),
    )
    op.create_index(
        "ix_outbox_next_try_at",
        "outbox",
        ["next_try_at"],
        postgresql_where=sa.text("next_try_at IS NOT NULL"),
    )
    # A short string of AMQP holds 255 bytes. What is longer and stands there already is cut, as it
    # would be today: 63 characters have at most 252.
    op.execute(
        "UPDATE outbox SET correlation_id = left(correlation_id, 63) "
        "WHERE octet_length(correlation_id) > 255"
    )
    op.execute("UPDATE outbox SET traceparent = NULL WHERE octet_length(traceparent) > 255")
    op.execute(
        "UPDATE outbox SET exchange = left(exchange, 63), type = left(type, 63), "
        "routing_key = left(routing_key, 63), source = left(source, 63) "
        "WHERE greatest(octet_length(exchange), octet_length(type), "
        "octet_length(routing_key), octet_length(source)) > 255"
    )
    op.create_check_constraint(
        op.f("ck_outbox_short_strings"),
        "outbox",
        " AND ".join(f"octet_length({column}) <= 255" for column in SHORT),
    )
    # Ops staff mend what is parked. What is under way is nobody's but the relay's.
    op.execute("""
        CREATE FUNCTION guard_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'only a parked message of the outbox may be changed'
                USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER outbox_guard BEFORE UPDATE OR DELETE ON outbox FOR EACH ROW
        WHEN (CURRENT_USER = 'fellow_ops' AND OLD.parked_at IS NULL)
        EXECUTE FUNCTION guard_outbox()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER outbox_guard ON outbox")
    op.execute("DROP FUNCTION guard_outbox")
    op.drop_constraint(op.f("ck_outbox_short_strings"), "outbox", type_="check")
    op.drop_index("ix_outbox_next_try_at", "outbox")
    for column in ("attempts", "next_try_at", "parked_at", "reason", "written_by"):
        op.drop_column("outbox", column)
