"""Whether a system is in order, part by part, and what to do where it is not."""

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
from services.ops.environment import Surroundings
from services.ops.monitoring import alerts
from services.ops.monitoring.heartbeats import FRESH, Beat, lacking
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.sampler import Sampler
from shared import versions
from shared.config.processes import KEYS
from shared.config.settings import Settings
from shared.db import migrate
from shared.db.session import make_engine

SMTP_SECONDS = 5.0


def run(system: Surroundings) -> Iterator[Check]:
    """Check every part, each as soon as the one before is done. Nothing is changed."""
    broken: set[str] = set()

    def told(checks: Iterable[Check]) -> Iterator[Check]:
        for check in checks:
            if check.state == "broken":
                broken.add(check.about)
            yield check

    config = system.settings
    yield from told(_keys(config))
    yield from told(broker_checks.broker(config))
    engine = make_engine(config) if system.has_database else None
    if engine is None:
        yield Check("database", "look", "its address is not known", "Set DATABASE_URL.")
    else:
        yield from told(_database(engine))
    sampler = Sampler(config.amqp_url, engine)
    sample = sampler.take()
    sampler.close()
    yield from told(_mail(config, sample))
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


def _database(engine: Engine) -> Iterator[Check]:
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
            yield _migrations(str(connection.scalar(text("SELECT * FROM alembic_version"))))
    except SQLAlchemyError as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        yield Check(
            "database",
            "broken",
            cause,
            "Is PostgreSQL running, is DATABASE_URL right, and is it migrated: "
            "python -m shared.db.migrate?",
        )


def _durability(connection: Connection) -> Check:
    """Whether what is committed is kept, when the server crashes and when another takes over."""
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


# A standby's state is NULL to whoever has not pg_monitor, which is no state at all.
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
    """Whether the mail server answers: the notifier's, by its settings, since it is who sends."""
    beats = sample.beats or ()
    held = lacking(beats, "mail", sample.at)
    if held is not None:
        yield Check("mail", "broken", held.reason, _MAIL_ADVICE)
        return
    used = {
        (said.where, said.starttls)
        for beat in beats
        if sample.at - beat.seen_at <= FRESH and (said := beat.queues.get("mail")) and said.where
    }
    if not used:
        own = (f"{config.smtp_host}:{config.smtp_port}", config.smtp_starttls)
        told = "no notifier tells its mail server; by the settings of this command"
        yield _answers(*own, told)
    for where, starttls in sorted(used):
        yield _answers(where, starttls, "as services.notifier is set")


def _answers(where: str, starttls: bool, told: str) -> Check:
    host, _, port = where.rpartition(":")
    try:
        with smtplib.SMTP(host, int(port), timeout=SMTP_SECONDS) as server:
            server.ehlo()
            if starttls:
                server.starttls(context=ssl.create_default_context())
                server.ehlo()
    except (OSError, smtplib.SMTPException) as error:
        return Check("mail", "broken", f"{where}: {error} ({told})", _MAIL_ADVICE)
    return Check("mail", "fine", f"{where} answers ({told})")


_MAIL_ADVICE = (
    "Check SMTP_HOST, SMTP_PORT, SMTP_STARTTLS and the sign-in of the notifier. Emails wait "
    "meanwhile, and none is lost."
)


def _running(sample: Sample, broken: Collection[str]) -> Iterator[Check]:
    """What the services and queues tell, but for the parts of which it was said above."""
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
    """How many of their connections are to which node, where there are several."""
    used = Counter(
        said.where for beat in beats for said in beat.queues.values() if said.state and said.where
    )
    if len(used) < 2:
        return ""
    return f" (by {', '.join(f'{where}: {count}' for where, count in sorted(used.items()))})"


_ADVICE = {
    "down": "Do as it says; else start it, and look into its log if it does not stay.",
    "warning": "See `fellow queues --watch` and `fellow dead list`.",
}
