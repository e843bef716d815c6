"""What two versions left unlooked at fulfils its constraints: looked at now, beside writers.

SHARE UPDATE EXCLUSIVE (PostgreSQL, ALTER TABLE, "VALIDATE CONSTRAINT") stops neither reads nor
writes.
"""

from alembic import op

revision = "0032"
down_revision = "0031"

CONSTRAINTS = (
    ("pending_proofs", "ck_pending_proofs_purpose"),
    ("email_deliveries", "ck_email_deliveries_state"),
    ("kyc_applications", "ck_kyc_applications_status"),
)


def upgrade() -> None:
    for table, constraint in CONSTRAINTS:
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")


def downgrade() -> None:
    """What is validated may stay so: the version before asks for the same."""
