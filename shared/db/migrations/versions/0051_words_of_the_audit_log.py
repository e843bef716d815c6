"""Words are found in the audit log without reading all of it.

By PostgreSQL's own extension `pg_trgm`, which every package of it has and a database's owner may
add. Where it is missing, or may not be added or used, the log is read row by row as before.
"""

from importlib import import_module

import structlog
from alembic import op
from sqlalchemy.exc import InternalError, NotSupportedError, ProgrammingError

revision = "0051"
down_revision = "0050"

INDEX = "ix_audit_log_words"
# As `shared.db.models.AUDIT_WORDS` has it.
WORDS = "actor || ' ' || address || ' ' || correlation_id || ' ' || type || ' ' || data"
SCHEMA = "extensions"  # the services look for no name in it
_MAY = """
    SELECT has_database_privilege(current_database(), 'CREATE')
        AND EXISTS (SELECT FROM pg_available_extension_versions
                    WHERE name = 'pg_trgm'
                    AND (trusted OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)))
"""
_WHERE = """
    SELECT quote_ident(nspname), has_schema_privilege(n.oid, 'USAGE')
    FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm'
"""

log = structlog.get_logger()


def upgrade() -> None:
    bind = op.get_bind()
    ask = bind.exec_driver_sql
    if ask(_WHERE).one_or_none() is None and ask(_MAY).scalar_one():
        try:
            with bind.begin_nested():
                op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                op.execute(f"CREATE EXTENSION pg_trgm SCHEMA {SCHEMA}")
        # A provider may have a list of its own of what may be added, which no catalog tells.
        except (InternalError, NotSupportedError, ProgrammingError) as error:
            log.warning("no_pg_trgm", reason=str(error.orig).strip())
    schema, is_usable = ask(_WHERE).one_or_none() or ("", False)
    if not is_usable:
        return
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build({INDEX: ("audit_log USING gin", f"({WORDS}) {schema}.gin_trgm_ops", "")})


def downgrade() -> None:
    # The extension stays: it may have been there before, and somebody else may use it.
    op.execute(f"DROP INDEX IF EXISTS {INDEX}")
