"""A second factor that is offered has an end; an outbox row says who has changed what it tells.

Of a second factor that is offered already nobody knows to whom: it is to none, and one begins anew.

And what a trigger does with its owner's rights it does for our own tables alone. Services may
create none but temporary ones; that they may not hang such a function on these is one rule
(`grants.apply`), and this is the other.
"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"

_OURS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prosecdef
      AND prorettype = 'trigger'::regtype AND pg_has_role(proowner, 'USAGE')
"""
_BELT = """BEGIN
        IF TG_TABLE_SCHEMA <> 'public' THEN
            RAISE EXCEPTION 'this is for tables of public'
                USING ERRCODE = 'insufficient_privilege';
        END IF;"""


def upgrade() -> None:
    op.add_column("ops_second_factors", sa.Column("offered_at", sa.DateTime(timezone=True)))
    op.add_column("ops_second_factors", sa.Column("offered_to", sa.LargeBinary()))
    op.execute("UPDATE ops_second_factors SET offered = NULL WHERE offered IS NOT NULL")
    op.add_column("outbox", sa.Column("mended_by", sa.Text(), nullable=False, server_default=""))
    op.execute("""
        CREATE FUNCTION sign_mended() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            NEW.mended_by := current_user;
            RETURN NEW;
        END $$
    """)
    # Not of the relay's updates, which name neither.
    op.execute("""
        CREATE TRIGGER outbox_signed BEFORE UPDATE OF body, correlation_id ON outbox FOR EACH ROW
        WHEN (CURRENT_USER = 'fellow_ops' AND (OLD.body, OLD.correlation_id)
              IS DISTINCT FROM (NEW.body, NEW.correlation_id))
        EXECUTE FUNCTION sign_mended()
    """)
    # The first of a body is that of its outermost block.
    _rewrite("BEGIN", _BELT)


def downgrade() -> None:
    _rewrite(_BELT, "BEGIN")
    op.execute("DROP TRIGGER outbox_signed ON outbox")
    op.execute("DROP FUNCTION sign_mended")
    op.drop_column("outbox", "mended_by")
    op.drop_column("ops_second_factors", "offered_to")
    op.drop_column("ops_second_factors", "offered_at")


def _rewrite(before: str, after: str) -> None:
    connection = op.get_bind()
    for (definition,) in connection.execute(sa.text(_OURS)).all():
        connection.exec_driver_sql(
            definition.replace(before, after, 1), execution_options={"no_parameters": True}
        )
