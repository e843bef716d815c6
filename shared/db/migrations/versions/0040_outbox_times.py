"""A message's time is one that AMQP, Python and JSON can say.

AMQP counts seconds from 1970 on and Python knows no year beyond 9999, so that a row beyond either
stopped the relay for all others.
"""

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    # The database that needs this most has such a row: its relay stands still for it.
    op.execute(
        "UPDATE outbox SET time = created_at "
        "WHERE time < '1970-01-01 00:00+00' OR time >= '9999-12-31 00:00+00'"
    )
    op.execute(
        "ALTER TABLE outbox ADD CONSTRAINT ck_outbox_time CHECK "
        "(time >= '1970-01-01 00:00+00' AND time < '9999-12-31 00:00+00') NOT VALID"
    )
    op.execute("ALTER TABLE outbox VALIDATE CONSTRAINT ck_outbox_time")


def downgrade() -> None:
    op.execute("ALTER TABLE outbox DROP CONSTRAINT ck_outbox_time")
