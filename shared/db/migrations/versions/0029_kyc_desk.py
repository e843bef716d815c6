"""An application can be sent back with a question, and operators keep notes on it.

A note is the operators' own: the business's side of the API has no right to it, and nobody changes
or removes one, whatever their rights.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"

_BEFORE = "status IN ('pending', 'approved', 'rejected', 'revoked')"
_NOW = "status IN ('pending', 'approved', 'rejected', 'revoked', 'incomplete')"
_CLOSE = """
    CREATE OR REPLACE FUNCTION close_account() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        UPDATE public.kyc_applications
        SET status = CASE status WHEN 'approved' THEN 'revoked' ELSE 'rejected' END,
            reason = 'The account was closed.', decided_by = 'the business',
            decided_at = clock_timestamp()
        WHERE account_id = NEW.id AND status IN ({open});
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    _replace("kyc_applications", "ck_kyc_applications_status", _NOW)
    op.execute(_CLOSE.format(open="'approved', 'pending', 'incomplete'"))
    op.create_table(
        "kyc_notes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("application_id", sa.Uuid(), nullable=False),
        sa.Column("written_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column(
            "written_at", sa.DateTime(timezone=True), server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["application_id"], ["kyc_applications.id"], name=op.f("fk_kyc_notes_application_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kyc_notes")),
    )  # fmt: skip
    op.create_index(op.f("ix_kyc_notes_application_id"), "kyc_notes", ["application_id"])
    op.execute("""
        CREATE FUNCTION refuse_change_of_note() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            RAISE EXCEPTION 'notes on an application are kept as they were written';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER kyc_notes_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON kyc_notes
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_note()
    """)


def downgrade() -> None:
    op.drop_table("kyc_notes")
    op.execute("DROP FUNCTION refuse_change_of_note()")
    op.execute(_CLOSE.format(open="'approved', 'pending'"))
    # What waits for an answer may be sent anew, as what was rejected.
    op.execute("UPDATE kyc_applications SET status = 'rejected' WHERE status = 'incomplete'")
    _replace("kyc_applications", "ck_kyc_applications_status", _BEFORE)


def _replace(table: str, constraint: str, condition: str) -> None:
    op.drop_constraint(op.f(constraint), table)
    # What is there has fulfilled the one before.
    op.create_check_constraint(op.f(constraint), table, condition, postgresql_not_valid=True)
