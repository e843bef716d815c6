r"""Each its own rows, as of the inbox (0009): who is alive, and what a message would do.

A service could say that another is well, or hide that it is away, and read what ops staff ask about
a message of another's queue. Who asks, `fellow_ops`, has every queue.
"""

from alembic import op

revision = "0037"
down_revision = "0036"

# `services.orders` and `relay` are both names of services as their roles have them.
_OWN_HEARTBEAT = r"""(
    service IN (substr(current_user, 8), 'services.' || substr(current_user, 8))
    OR current_user NOT LIKE 'fellow\_%'
)"""
# A service's queues bear its name: `secrets.issue`. The recorder's is `orders.intake`.
_OWN_QUEUE = r"""(
    queue = substr(current_user, 8) OR queue LIKE substr(current_user, 8) || '.%'
    OR current_user = 'fellow_ops' OR current_user NOT LIKE 'fellow\_%'
)"""
_HEARTBEATS, _REHEARSALS = "service_heartbeats", "rehearsals"


def upgrade() -> None:
    for table in (_HEARTBEATS, _REHEARSALS):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY by_rights ON {table} USING (true)")
    for verb, clause in (("INSERT", "WITH CHECK"), ("UPDATE", "USING"), ("DELETE", "USING")):
        op.execute(
            f"CREATE POLICY own_{verb.lower()} ON {_HEARTBEATS} AS RESTRICTIVE "
            f"FOR {verb} {clause} {_OWN_HEARTBEAT}"
        )
    op.execute(f"CREATE POLICY own ON {_REHEARSALS} AS RESTRICTIVE USING {_OWN_QUEUE}")


def downgrade() -> None:
    op.execute(f"DROP POLICY own ON {_REHEARSALS}")
    for verb in ("insert", "update", "delete"):
        op.execute(f"DROP POLICY own_{verb} ON {_HEARTBEATS}")
    for table in (_HEARTBEATS, _REHEARSALS):
        op.execute(f"DROP POLICY by_rights ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
