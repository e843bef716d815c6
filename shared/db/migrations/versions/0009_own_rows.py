"""Each its own rows: only its owner writes into an inbox, and the ingress approves nobody.

Rights by table let every consumer delete another's inbox rows, so that what was handled would be
handled again, and the ingress insert an application that was approved already.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

# Who is none of the product's roles has no rights here, or owns the tables and may do anything.
# The first comparison settles it for nearly every row, with what is computed once a statement: the
# recorder enters thousands of rows a second.
_OWN_INBOX = r"""(
    consumer = (SELECT 'services.' || substr(current_user, 8))
    OR consumer LIKE 'services.' || substr(current_user, 8) || '/%'
    OR current_user NOT LIKE 'fellow\_%'
)"""
_UNDECIDED = """(
    current_user <> 'fellow_ingress'
    OR (status = 'pending' AND reason = '' AND decided_at IS NULL AND decided_by IS NULL)
)"""


def upgrade() -> None:
    for table in ("inbox", "kyc_applications"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY by_rights ON {table} USING (true)")
    for verb, clause in (("INSERT", "WITH CHECK"), ("UPDATE", "USING"), ("DELETE", "USING")):
        op.execute(
            f"CREATE POLICY own_{verb.lower()} ON inbox AS RESTRICTIVE "
            f"FOR {verb} {clause} {_OWN_INBOX}"
        )
    op.execute(
        "CREATE POLICY undecided ON kyc_applications AS RESTRICTIVE "
        f"FOR INSERT WITH CHECK {_UNDECIDED}"
    )


def downgrade() -> None:
    op.execute("DROP POLICY undecided ON kyc_applications")
    for verb in ("insert", "update", "delete"):
        op.execute(f"DROP POLICY own_{verb} ON inbox")
    for table in ("inbox", "kyc_applications"):
        op.execute(f"DROP POLICY by_rights ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
