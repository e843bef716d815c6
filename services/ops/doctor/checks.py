"""The doctor's checks of all parts, each with advice."""

import smtplib
import ssl
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from services.ops.doctor import broker_checks
from services.ops.doctor.check import Check, clocks
from services.ops.environment import Target
from services.ops.monitoring import alerts
from services.ops.monitoring.heartbeats import FRESH, Beat, lacking
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.sampler import Sampler
from shared import versions
from shared.config.processes import KEYS
from shared.config.settings import Settings
from shared.db import migrate
from shared.db.session import make_engine, message_of
from shared.http.callers import is_internal
from shared.security.service_accounts import SERVICES, login

SMTP_SECONDS = 5.0


def run(system: Target) -> Iterator[Check]:
    """Check every part in turn, changing nothing; yields each result as soon as it is known."""
    broken: set[str] = set()

    def noted(checks: Iterable[Check]) -> Iterator[Check]:
        for check in checks:
            if check.state == "broken":
                broken.add(check.about)
            yield check

    config = system.settings
    yield from noted(_keys(config))
    yield from noted(broker_checks.broker(config))
    engine = make_engine(config) if system.has_database else None
    if engine is None:
        yield Check("database", "look", "its address is not known", "Set DATABASE_URL.")
    else:
        yield from noted(_database(engine, config.environment))
    sampler = Sampler(config.amqp_url, engine, config.intake_shards)
    sample = sampler.take()
    sampler.close()
    yield from noted(_mail(config, sample))
    yield from _running(sample, broken)


def _keys(config: Settings) -> Iterator[Check]:
    known = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    development = [name for name in KEYS if known[name] in config.listed(name)]
    if development:
        # With ENVIRONMENT=production the configuration is refused before this.
        yield Check(
            "keys",
            "look",
            f"{', '.join(development)}: the development keys, in the environment "
            f"{config.environment}",
            "Never so in production: `fellow keys generate`, and ENVIRONMENT=production, "
            "which refuses them.",
        )
    else:
        yield Check("keys", "fine", "none of them is a development key")


def _database(engine: Engine, environment: str) -> Iterator[Check]:
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
            before = datetime.now(UTC)
            there = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            after = datetime.now(UTC)
            untried = versions.warning("PostgreSQL", version)
            yield Check(
                "database",
                "look" if untried else "fine",
                f"PostgreSQL {version}",
                untried or "",
            )
            skew = (there - before - (after - before) / 2).total_seconds()
            yield clocks("database", skew)
            yield _durability(connection)
            yield _limits(connection)
            if environment == "production":
                yield from _clients(connection)
            yield _migrations(str(connection.scalar(text("SELECT * FROM alembic_version"))))
    except SQLAlchemyError as error:
        yield Check(
            "database",
            "broken",
            message_of(error),
            "Is PostgreSQL running, is DATABASE_URL right, and is it migrated: "
            "python -m shared.db.migrate?",
        )


def _durability(connection: Connection) -> Check:
    """Check that commits survive a crash of the server, and a failover."""
    unsafe = [f"{row.setting} {row.of}" for row in connection.execute(_UNSAFE)]
    states = set(connection.execute(_STANDBYS).scalars())
    if states and not states & {"sync", "quorum"}:
        unsafe.append("no standby is synchronous")
    if not unsafe:
        return Check("commits", "fine", "kept on disk, and by a standby where there is one")
    return Check(
        "commits",
        "look",
        f"not safe: {', '.join(unsafe)}",
        "After a crash, or when a standby takes over, orders that were answered 201 may be lost, "
        "and a revoked secret live again. In production set synchronous_commit and fsync to "
        "on, and synchronous_standby_names; else replay after each, as docs/recovery.md says.",
    )


def _limits(connection: Connection) -> Check:
    """Check that no time limit ends the services' statements."""
    roles = [login(service) for service in SERVICES]
    rows = connection.execute(_LIMITS, {"roles": roles})
    found = [f"{row.setting} {row.of}" for row in rows]
    if not found:
        return Check("time limits", "fine", "no statement of a service is ended by the server")
    return Check(
        "time limits",
        "look",
        f"the server ends statements: {'; '.join(found)}",
        "A batch that takes longer is rolled back and begun again, without end, and so is a "
        "deletion or a migration. Set it to 0 for the services' roles (docs/deploying.md).",
    )


def _clients(connection: Connection) -> Iterator[Check]:
    """Report each internal address that several businesses signed in from: likely a proxy."""
    for address, businesses in connection.execute(_SHARED_ADDRESSES):
        if is_internal(address):
            yield Check(
                "clients",
                "look",
                f"in the last day {businesses} businesses signed in from {address}, which is in "
                "your own networks",
                "If it is a proxy, all clients behind it share the limits of one: raise "
                "TRUSTED_PROXIES of the ingress or the portal (docs/proxies.md).",
            )


_SHARED_ADDRESSES = text("""
    SELECT address, count(DISTINCT correlation_id)
    FROM (
        SELECT address, correlation_id, happened_at
        FROM audit_log WHERE type = 'account.signed_in'
        ORDER BY sequence DESC LIMIT 200
    ) AS latest
    WHERE happened_at > now() - interval '1 day'
    GROUP BY address HAVING count(DISTINCT correlation_id) > 1 ORDER BY address
""")
# Without pg_monitor a standby's state reads as NULL.
_STANDBYS = text("SELECT sync_state FROM pg_stat_replication WHERE sync_state IS NOT NULL")
_UNSAFE = text("""
    SELECT name || '=off' AS setting, 'of the server' AS of
    FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'
    UNION ALL
    SELECT 'synchronous_commit=off', 'of the server' FROM pg_settings
    WHERE name = 'synchronous_commit' AND reset_val = 'off' AND source NOT IN ('database', 'user',
        'database user')
    UNION ALL
    SELECT setting, 'of ' || coalesce(rolname, 'the database')
    FROM pg_db_role_setting
    LEFT JOIN pg_roles ON pg_roles.oid = setrole
    CROSS JOIN LATERAL unnest(setconfig) AS setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND setting = 'synchronous_commit=off'
    ORDER BY 1, 2
""")
# Of other roles, such as those of people who read, a limit is right. Of the settings for a role the
# most special one holds (PostgreSQL, ALTER ROLE); a value of the server is seen if none hides it.
_LIMITS = text("""
    WITH roles AS (
        SELECT oid, rolname FROM pg_roles
        WHERE rolname = current_user OR rolname = ANY(CAST(:roles AS text[]))
    ), limits (name) AS (
        VALUES ('statement_timeout'), ('lock_timeout'), ('transaction_timeout')
    ), given AS (
        SELECT name, 0 AS of_role, 0 AS of_database, reset_val AS value
        FROM pg_settings WHERE source NOT IN ('database', 'user', 'database user', 'client')
        UNION ALL
        SELECT split_part(setting, '=', 1), CAST(setrole AS bigint), CAST(setdatabase AS bigint),
               split_part(setting, '=', 2)
        FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) AS setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ), effective AS (
        SELECT DISTINCT ON (rolname, name) rolname, name, value
        FROM roles CROSS JOIN limits JOIN given USING (name)
        WHERE of_role IN (0, CAST(roles.oid AS bigint))
        ORDER BY rolname, name, of_role = 0, of_database = 0
    )
    SELECT name || '=' || value AS setting, 'of ' || string_agg(rolname, ', ') AS of
    FROM effective WHERE value !~ '^0[a-z]*$' GROUP BY 1 ORDER BY 1
""")


def _migrations(found: str) -> Check:
    head = ScriptDirectory.from_config(migrate.config("")).get_current_head()
    if found == head:
        return Check("migrations", "fine", f"at the newest, {head}")
    return Check(
        "migrations",
        "broken",
        f"at {found}, and this program is of {head}",
        "Run python -m shared.db.migrate as the database's owner, or the program of that version.",
    )


def _mail(config: Settings, sample: Sample) -> Iterator[Check]:
    """Check the mail server that the notifiers report, or else that of the settings."""
    beats = sample.beats or ()
    failed = lacking(beats, "mail", sample.at)
    if failed is not None:
        yield Check("mail", "broken", failed.reason, _MAIL_ADVICE)
        return
    used = {
        (mail.where, mail.starttls)
        for beat in beats
        if sample.at - beat.seen_at <= FRESH and (mail := beat.queues.get("mail")) and mail.where
    }
    if not used:
        own = (f"{config.smtp_host}:{config.smtp_port}", config.smtp_starttls)
        source = "no notifier tells its mail server; by the settings of this command"
        yield _connects(*own, source)
    for where, starttls in sorted(used):
        yield _connects(where, starttls, "as services.notifier is set")


def _connects(where: str, starttls: bool, source: str) -> Check:
    host, _, port = where.rpartition(":")
    try:
        with smtplib.SMTP(host, int(port), timeout=SMTP_SECONDS) as server:
            server.ehlo()
            if starttls:
                server.starttls(context=ssl.create_default_context())
                server.ehlo()
    except (OSError, smtplib.SMTPException) as error:
        return Check("mail", "broken", f"{where}: {error} ({source})", _MAIL_ADVICE)
    return Check("mail", "fine", f"{where} answers ({source})")


_MAIL_ADVICE = (
    "Check SMTP_HOST, SMTP_PORT, SMTP_STARTTLS and the sign-in of the notifier. Emails wait "
    "meanwhile, and none is lost."
)


def _running(sample: Sample, broken: Collection[str]) -> Iterator[Check]:
    """Check the services and queues by the sample, except for the parts reported as broken."""
    beats = sample.beats or ()
    alive = [beat for beat in beats if sample.at - beat.seen_at < FRESH]
    if alive:
        versions = sorted({beat.version for beat in alive})
        text_ = f"{len(alive)} processes of {len({b.service for b in alive})} services alive"
        text_ += _nodes_in_use(alive)
        if len(versions) > 1:
            found = f"{text_}, of versions {', '.join(versions)}"
            yield Check("services", "look", found, "Deploy one version.")
        else:
            yield Check("services", "fine", f"{text_}, version {versions[0]}")
    for trouble in alerts.troubles([sample]):
        if trouble.about in broken:
            continue
        state: Literal["look", "broken"] = "broken" if trouble.level == "down" else "look"
        yield Check(trouble.about, state, trouble.text, _ADVICE[trouble.level])


def _nodes_in_use(beats: Iterable[Beat]) -> str:
    """Return how many connections each broker node has, if there are several nodes."""
    used = Counter(
        queue.where
        for beat in beats
        for queue in beat.queues.values()
        if queue.state and queue.where
    )
    if len(used) < 2:
        return ""
    return f" (by {', '.join(f'{where}: {count}' for where, count in sorted(used.items()))})"


_ADVICE = {
    "down": "Do as it says; else start it, and look into its log if it does not stay.",
    "warning": "See `fellow queues --watch` and `fellow dead list`.",
}
