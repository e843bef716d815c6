"""Who has the same registration number is found by an index, however many have it."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"

INDEX = "ix_kyc_applications_bare_number"
BARE = (
    "regexp_replace(lower(business_registration_number), '[[\\:space\\:][\\:punct\\:]]', '', 'g')"
)


def upgrade() -> None:
    op.create_index(INDEX, "kyc_applications", [sa.text(BARE), "submitted_at", "id"])


def downgrade() -> None:
    op.drop_index(INDEX, "kyc_applications")
