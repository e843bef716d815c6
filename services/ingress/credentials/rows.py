"""The queries of a worker's secret cache.

Each row carries the id of the transaction that changed it last. The changes since a snapshot are
the rows that the snapshot does not see: none is missed, however long a transaction took, and none
is returned twice.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Label,
    Select,
    and_,
    func,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import BigInteger, Text

from services.ingress.credentials.secret import MAX_GIVEN_TRIED, MAX_TRIED
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.models import Account, WebhookPolicy, WebhookPublicKey, WebhookSecret
from shared.db.session import engine
from shared.synthetic import LIKE

REMEMBER_EXPIRED_DAYS = 30
# Secrets a query at the start: loading all in one query takes four times the memory.
PAGE = 2_000

Query = Select[*tuple[Any, ...]]


def _is_synthetic(account_id: InstrumentedAttribute[UUID]) -> Label[bool | None]:
    return (
        select(Account.email.like(LIKE))
        .where(Account.id == account_id)
        .scalar_subquery()
        .label("is_synthetic")
    )


_secrets = select(
    WebhookSecret.key_hash,
    WebhookSecret.id,
    WebhookSecret.account_id,
    WebhookSecret.platform,
    WebhookSecret.sealed,
    WebhookSecret.state,
    WebhookSecret.expires_at,
    WebhookSecret.replaced_at,
    WebhookSecret.is_test,
    WebhookSecret.change,
    _is_synthetic(WebhookSecret.account_id),
)
_public_keys = select(
    WebhookPublicKey.id,
    WebhookPublicKey.account_id,
    WebhookPublicKey.public_key,
    WebhookPublicKey.state,
    WebhookPublicKey.change,
    _is_synthetic(WebhookPublicKey.account_id),
)
_policies = select(
    WebhookPolicy.account_id,
    WebhookPolicy.allowed_networks,
    WebhookPolicy.rate_per_second,
    WebhookPolicy.standard_webhooks_only,
    WebhookPolicy.blocked_at,
    WebhookPolicy.change,
)
# A promoted or restored server may lack its predecessor's last changes, and numbers transactions
# anew.
_POSITION = text("""
    SELECT pg_current_snapshot()::text AS snapshot,
           extract(epoch FROM clock_timestamp())::float8 AS stated,
           concat_ws('/',
               (SELECT system_identifier FROM pg_control_system()),
               CASE WHEN NOT pg_is_in_recovery()
                    THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
               (SELECT oid FROM pg_database WHERE datname = current_database())) AS server
""")


@dataclass(frozen=True, slots=True)
class Position:
    """A position up to which the database was read.

    Attributes:
        snapshot: the text of a `pg_snapshot`.
        server: identifies cluster, timeline and database.
    """

    snapshot: str
    server: str

    @property
    def xmin(self) -> int:
        """The first transaction id that may have been in progress."""
        return int(self.snapshot.split(":")[0])

    @property
    def xmax(self) -> int:
        """The first transaction id that was not assigned yet."""
        return int(self.snapshot.split(":")[1])

    def leads_to(self, later: "Position") -> bool:
        """Return whether a poll can go on from here to `later`, without loading everything."""
        return self.server == later.server and self.xmax <= later.xmax


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a query.

    Attributes:
        position: of the database, before the query.
        reading: the arguments of `DatabaseClock.read`.
        secrets: rows of `webhook_secrets`.
        policies: rows of `webhook_policies`.
        public_keys: rows of `webhook_public_keys`.
    """

    position: Position
    reading: tuple[float, float, float]
    secrets: Sequence[Any] = field(default=())
    policies: Sequence[Any] = field(default=())
    public_keys: Sequence[Any] = field(default=())


@within(ANSWER_SECONDS)
def here() -> Found:
    """Return the database's position, all policies, and all active public keys."""
    with engine().connect() as connection:
        position, reading = _position(connection)
        # Also recently revoked keys: a concurrent query may have read them as active.
        is_recent = WebhookPublicKey.updated_at > func.now() - func.make_interval(0, 0, 0, 0, 1)
        live = _public_keys.where(or_(WebhookPublicKey.state == "active", is_recent))
        return Found(
            position,
            reading,
            policies=connection.execute(_policies).all(),
            public_keys=connection.execute(live).all(),
        )


def page(after: UUID) -> Found:
    """Return the next `PAGE` secrets by id, of those that are valid or ended recently."""
    query = _secrets.where(_is_remembered(), WebhookSecret.id > after)
    return _ask(query.order_by(WebhookSecret.id).limit(PAGE))


def by_hash(key_hash: bytes) -> Found:
    """Return the secret with a hash, and its account's policy."""
    return _ask(_secrets.where(WebhookSecret.key_hash == key_hash))


def newest_of(account_id: UUID, platform: str = "") -> Found:
    """Return the secrets and keys that a signature is checked against, and the account's policy.

    Args:
        account_id: the account.
        platform: that made the secrets; empty for ours, and for public keys.
    """
    is_remembered = and_(
        WebhookSecret.account_id == account_id,
        WebhookSecret.platform == platform,
        WebhookSecret.state != "revoked",
        _is_remembered(),
    )
    if platform:
        live = WebhookSecret.state.in_(("active", "retiring"))
        given = _secrets.where(is_remembered, live, WebhookSecret.expires_at > func.now())
        active_first = given.order_by(
            (WebhookSecret.state == "active").desc(), WebhookSecret.id.desc()
        )
        return _ask(active_first.limit(MAX_GIVEN_TRIED))
    newest = (
        select(WebhookSecret.id)
        .where(is_remembered, WebhookSecret.is_test == is_test)
        .order_by(WebhookSecret.id.desc())
        .limit(MAX_TRIED)
        for is_test in (False, True)
    )
    keys = _public_keys.where(
        WebhookPublicKey.account_id == account_id, WebhookPublicKey.state == "active"
    )
    return _ask(_secrets.where(WebhookSecret.id.in_(union_all(*newest))), keys)


@within(ANSWER_SECONDS)
def since(position: Position) -> Found:
    """Return the changes since a position; none if it does not lead to the server's position."""
    with engine().connect() as connection:
        now, reading = _position(connection)
        if not position.leads_to(now):
            return Found(now, reading)
        return Found(
            now,
            reading,
            connection.execute(_secrets.where(_unseen(WebhookSecret.changed_in, position))).all(),
            connection.execute(_policies.where(_unseen(WebhookPolicy.changed_in, position))).all(),
            connection.execute(
                _public_keys.where(_unseen(WebhookPublicKey.changed_in, position))
            ).all(),
        )


@within(ANSWER_SECONDS)
def _ask(secrets: Query, public_keys: Query | None = None) -> Found:
    with engine().connect() as connection:
        position, reading = _position(connection)
        rows = connection.execute(secrets).all()
        keys = () if public_keys is None else connection.execute(public_keys).all()
        accounts = {row.account_id for row in (*rows, *keys)}
        is_theirs = WebhookPolicy.account_id.in_(accounts)
        policies = connection.execute(_policies.where(is_theirs)).all()
        return Found(position, reading, rows, policies, keys)


def _position(connection: Connection) -> tuple[Position, tuple[float, float, float]]:
    before = time.monotonic()
    row = connection.execute(_POSITION).one()
    return Position(row.snapshot, row.server), (row.stated, before, time.monotonic())


def _unseen(changed_in: Any, position: Position) -> ColumnElement[bool]:
    # Ids beyond the newest transaction are another server's, restored together with its rows.
    newest = func.pg_snapshot_xmax(func.pg_current_snapshot()).cast(Text).cast(BigInteger)
    unseen = text(
        "NOT pg_visible_in_snapshot(CAST(CAST(changed_in AS text) AS xid8), "
        "CAST(:snapshot AS pg_snapshot))"
    ).bindparams(snapshot=position.snapshot)
    return and_(changed_in >= position.xmin, changed_in < newest, unseen)


def _is_remembered() -> ColumnElement[bool]:
    return or_(
        WebhookSecret.state.in_(("active", "retiring")),
        # A secret made by a platform never expires; it ends when it is revoked.
        func.least(WebhookSecret.expires_at, WebhookSecret.revoked_at)
        > func.now() - func.make_interval(0, 0, 0, REMEMBER_EXPIRED_DAYS),
    )
