"""A business's emails have a language and a time zone; empty: English and UTC.

Whether there is such a language or zone is not the database's to know: both come and go with the
code, and an unknown one reads as none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"

COLUMNS = ("language", "time_zone")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column(
            "email_senders", sa.Column(name, sa.Text(), server_default="", nullable=False)
        )


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("email_senders", name)
