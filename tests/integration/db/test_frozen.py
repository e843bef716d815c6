"""A process that is frozen, or a machine that is gone, keeps nobody from what it has locked."""

import os
import socket
import threading

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.notifier import handlers
from services.relay import metrics, relay
from shared.db import session
from tests.integration.arrange import PATIENCE, account, until
from tests.integration.gate import Gate
from tests.integration.notifier.test_once import deliveries, notifying, server
from tests.integration.notifier.test_sending import order_fact, tell

__all__ = ["server"]


def bounds_of(engine):
    """What the server does about a client of this engine that says nothing."""
    names = ("idle_in_transaction_session_timeout", "tcp_keepalives_idle", "tcp_user_timeout")
    with engine.connect() as connection:
        return [connection.execute(text(f"SHOW {name}")).scalar() for name in names]


def test_the_server_gives_up_clients_that_are_gone(settings):
    assert bounds_of(session.make_engine(settings)) == ["30s", "10", "20000"]
    assert bounds_of(relay.Relay(settings)._engine) == ["2min", "10", "20000"]


def test_a_client_gives_up_a_server_that_is_gone(settings):
    """As the kernel has it, of a connection of each kind (tcp(7))."""
    engines = [
        session.make_engine(settings),
        relay.Relay(settings)._engine,
        metrics.outbox(settings)._engine,
    ]
    for engine in engines:
        with engine.connect() as connection:
            assert tcp_of(connection.connection.fileno()) == (1, 10, 5, 2, 20_000)
    dsn = settings.database_url.replace("+psycopg2", "", 1)
    with psycopg2.connect(dsn, **session.connect_args(settings.database_url)) as connection:
        assert tcp_of(connection.fileno()) == (1, 10, 5, 2, 20_000)


def tcp_of(descriptor):
    with socket.socket(fileno=os.dup(descriptor)) as connected:
        return (
            connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            *(
                connected.getsockopt(socket.IPPROTO_TCP, name)
                for name in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                    socket.TCP_USER_TIMEOUT,
                )
            ),
        )


def test_settings_in_the_url_stay(settings, configure):
    url = f"{settings.database_url}?options=-c%20search_path%3Dpg_catalog"
    with session.make_engine(configure(database_url=url)).connect() as connection:
        assert connection.execute(text("SHOW search_path")).scalar() == "pg_catalog"


def test_a_lock_ends_with_the_patience_of_the_server(settings, db, configure, monkeypatch):
    monkeypatch.setattr(session, "IDLE_SECONDS", 1)
    account(db, status="approved")

    def freeze_in_the_middle():
        with session.transaction() as frozen:
            frozen.execute(text("SELECT 1 FROM kyc_applications FOR UPDATE"))
            gate.stall()
            # Somebody else's revocation, in the meantime.
            db.execute(text("SET LOCAL lock_timeout = '30s'"))
            db.execute(text("UPDATE kyc_applications SET status = 'revoked'"))
            db.commit()
            gate.open()
            frozen.execute(text("SELECT 1"))

    with Gate(settings.database_url) as gate:
        configure(database_url=gate.url)
        with pytest.raises(DBAPIError) as raised:
            freeze_in_the_middle()
    assert session.is_database_unavailable(raised.value)


def test_who_waits_for_a_mail_server_is_not_frozen(
    settings, configure, mailbox, server, engine, monkeypatch
):
    """It thinks for longer than a transaction may wait for its own process."""
    for module in (session, handlers):
        monkeypatch.setattr(module, "IDLE_SECONDS", 3)
    # It waits on by itself meanwhile, in the one transaction.
    monkeypatch.setattr(handlers, "RECORD_SECONDS", PATIENCE)
    server.thinks_of = "slow"
    config = configure(smtp_port=str(mailbox.port))
    tell(settings.amqp_url, order_fact(customer_email="slow@shop.example"))
    backends = text("SELECT backend_start FROM pg_stat_activity WHERE state LIKE 'idle in%'")

    def waiting():
        with engine.connect() as connection:
            return connection.execute(backends).scalars().all()

    with notifying(config):
        assert server.thinking.wait(PATIENCE)
        first = until(waiting, "the transaction waits")
        threading.Event().wait(6)
        # Between two of its words, of which each takes a moment.
        assert until(waiting, "it waits yet") == first
        server.decided.set()
        until(lambda: deliveries(engine), "written down")
    assert server.taken == 1
