"""Words are found in the audit log without reading all of it.

By PostgreSQL's own extension `pg_trgm`, which every package of it has and a database's owner may
add. Where it is missing, or may not be added, the log is read row by row as before.
"""

from importlib import import_module

from alembic import op

revision = "0051"
down_revision = "0050"

INDEX = "ix_audit_log_words"
# As `shared.db.models.AUDIT_WORDS` has it.
WORDS = "actor || ' ' || address || ' ' || correlation_id || ' ' || type || ' ' || data"
SCHEMA = "extensions"  # the services look for no name in it
_MAY = """
    SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
        OR (has_database_privilege(current_database(), 'CREATE')
            AND EXISTS (SELECT FROM pg_available_extension_versions
                        WHERE name = 'pg_trgm'
                        AND (trusted OR (SELECT rolsuper FROM pg_roles
                                         WHERE rolname = current_user))))
"""
_WHERE = """
    SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
    WHERE extname = 'pg_trgm'
"""


def upgrade() -> None:
    ask = op.get_bind().exec_driver_sql
    if not ask(_MAY).scalar_one():
        return
    if ask(_WHERE).scalar_one_or_none() is None:
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        op.execute(f"CREATE EXTENSION pg_trgm SCHEMA {SCHEMA}")
    schema = ask(_WHERE).scalar_one()
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build({INDEX: ("audit_log USING gin", f"({WORDS}) {schema}.gin_trgm_ops", "")})


def downgrade() -> None:
    op.execute(f"DROP INDEX IF EXISTS {INDEX}")
    if op.get_bind().exec_driver_sql(_WHERE).scalar_one_or_none() == SCHEMA:
        op.execute("DROP EXTENSION pg_trgm")
        op.execute(f"DROP SCHEMA {SCHEMA}")
