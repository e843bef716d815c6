"""Whether a system is in order, part by part, and what to do where it is not."""

import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from alembic.script import ScriptDirectory
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from kombu import Connection
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from services.ops import diagnosis
from services.ops.broker import open_connection
from services.ops.queues import FRESH
from services.ops.sampling import Sampler
from services.ops.surroundings import Surroundings
from shared.bus import topology
from shared.config import DEVELOPMENT_ENCRYPTION_KEY, DEVELOPMENT_JWT_KEY, Settings
from shared.db import migrate
from shared.db.session import make_engine

SKEW_SECONDS = 2.0
SMTP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one part.

    Attributes:
        about: the part.
        state: `fine`; `look`: it works, but not as it should; `broken`.
        found: what was found, in words.
        advice: what to do; empty when it is fine.
    """

    about: str
    state: Literal["fine", "look", "broken"]
    found: str
    advice: str = ""


def run(system: Surroundings) -> Iterator[Check]:
    """Check every part, each as soon as the one before is done. Nothing is changed."""
    config = system.settings
    yield from _keys(config)
    yield from _broker(config)
    engine = make_engine(config) if system.has_database else None
    if engine is None:
        yield Check("database", "look", "its address is not known", "Set DATABASE_URL.")
    else:
        yield from _database(engine)
    yield from _smtp(config)
    yield from _running(config, engine)


def _keys(config: Settings) -> Iterator[Check]:
    development = [
        name
        for name, used in (
            ("SECRET_ENCRYPTION_KEYS", DEVELOPMENT_ENCRYPTION_KEY in config.encryption_keys()),
            ("JWT_SIGNING_KEY", config.jwt_signing_key == DEVELOPMENT_JWT_KEY),
        )
        if used
    ]
    if development:
        # With ENVIRONMENT=production the configuration is refused before this.
        yield Check(
            "keys",
            "look",
            f"{' and '.join(development)}: the development keys, in the environment "
            f"{config.environment}",
            "Never so in production: `fellow keys generate`, and ENVIRONMENT=production, "
            "which refuses them.",
        )
    else:
        yield Check("keys", "fine", "none of them is a development key")


def _broker(config: Settings) -> Iterator[Check]:
    try:
        connection = open_connection(config.amqp_url)
    except Exception as error:  # noqa: BLE001 - whatever it was is what is said
        where = Connection(config.amqp_url).as_uri()
        yield Check(
            "broker",
            "broken",
            f"{where} does not answer: {getattr(error, 'reply_text', '') or error}",
            "Is RabbitMQ running, and is AMQP_URL right: host, port, user, password, vhost?",
        )
        return
    with connection:
        said = connection.connection.server_properties
        yield Check("broker", "fine", f"{said.get('product')} {said.get('version')}")
        yield _topology(connection)


def _topology(connection: Connection) -> Check:
    missing = [queue.name for queue in topology.QUEUES if not _has_queue(connection, queue)]
    missing += [
        f"the exchange {exchange.name}"
        for exchange in topology.EXCHANGES
        if not _has_exchange(connection, exchange)
    ]
    if missing:
        return Check(
            "topology",
            "broken",
            f"missing: {', '.join(missing)}",
            "Declare it as the administrator: python -m shared.bus.declare",
        )
    different = []
    # What is there is not changed by being declared again; only who may do so learns more.
    for queue in topology.QUEUES:
        try:
            with connection.channel() as channel:
                channel.queue_declare(
                    queue.name, durable=True, auto_delete=False, arguments=queue.arguments
                )
        except PreconditionFailed as error:
            different.append(str(error.reply_text))
        except AccessRefused:
            return Check(
                "topology", "fine", "everything is there (only its owner can see the arguments)"
            )
    if different:
        return Check(
            "topology",
            "broken",
            "; ".join(different),
            "It is of another version: empty it, delete it, and run python -m shared.bus.declare",
        )
    return Check("topology", "fine", "everything is there, as it should be")


def _has_queue(connection: Connection, queue: topology.Queue) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
    except NotFound:
        return False
    return True


def _has_exchange(connection: Connection, exchange: topology.Exchange) -> bool:
    try:
        with connection.channel() as channel:
            channel.exchange_declare(exchange.name, exchange.kind, passive=True)
    except NotFound:
        return False
    return True


def _database(engine: Engine) -> Iterator[Check]:
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
            before = datetime.now(UTC)
            there = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            after = datetime.now(UTC)
            yield Check("database", "fine", f"PostgreSQL {version}")
            skew = (there - before - (after - before) / 2).total_seconds()
            if abs(skew) > SKEW_SECONDS:
                yield Check(
                    "clocks",
                    "look",
                    f"the database's is {skew:+.1f} s from this host's",
                    "Run NTP on both: signatures, codes and secrets go by the time.",
                )
            else:
                yield Check("clocks", "fine", f"the database's and this host's: {skew:+.3f} s")
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


def _smtp(config: Settings) -> Iterator[Check]:
    where = f"{config.smtp_host}:{config.smtp_port}"
    try:
        with smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=SMTP_SECONDS) as server:
            server.ehlo()
            if config.smtp_starttls:
                server.starttls(context=ssl.create_default_context())
                server.ehlo()
            if config.smtp_username:
                server.login(config.smtp_username, config.smtp_password)
    except (OSError, smtplib.SMTPException) as error:
        yield Check(
            "mail",
            "broken",
            f"{where}: {error}",
            "Check SMTP_HOST, SMTP_PORT, SMTP_STARTTLS and the sign-in. Emails wait meanwhile.",
        )
        return
    yield Check("mail", "fine", f"{where} answers" + (", signed in" * bool(config.smtp_username)))


def _running(config: Settings, engine: Engine | None) -> Iterator[Check]:
    sampler = Sampler(config.amqp_url, engine)
    sample = sampler.take()
    sampler.close()
    beats = sample.beats or ()
    alive = [beat for beat in beats if sample.at - beat.seen_at < FRESH]
    if alive:
        versions = sorted({beat.version for beat in alive})
        text_ = f"{len(alive)} processes of {len({b.service for b in alive})} services alive"
        if len(versions) > 1:
            found = f"{text_}, of versions {', '.join(versions)}"
            yield Check("services", "look", found, "Deploy one version.")
        else:
            yield Check("services", "fine", f"{text_}, version {versions[0]}")
    for trouble in diagnosis.troubles([sample]):
        if trouble.about in ("broker", "database") and "answer" in trouble.text:
            continue  # was said
        state: Literal["look", "broken"] = "broken" if trouble.level == "down" else "look"
        yield Check(trouble.about, state, trouble.text, _ADVICE[trouble.level])


_ADVICE = {
    "down": "Start it, and look into its log if it does not stay.",
    "warning": "See `fellow queues --watch` and `fellow dead list`.",
}
