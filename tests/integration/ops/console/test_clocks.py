"""A console on a host whose clock is wrong: sign-ins and codes go by the database's."""

from datetime import timedelta

import httpx
from sqlalchemy import func, update

from shared.db.models import OpsSession
from stack.servers.credentials import as_service
from tests.integration.arrange import PATIENCE
from tests.integration.ops.console.test_sign_in import (
    PASSWORD,
    app,
    attempt,
    give_code,
    service,
    unused,
)
from tests.integration.wrong_clocks import set_clock, wrong_host

__all__ = ["app", "service"]

ADDRESS = "203.0.113.9"
OFF = timedelta(minutes=15)


def test_a_consoles_clock_decides_nothing(app, settings, db, amqp_url, database_url, tmp_path):
    """It starts ahead, and is behind from one moment to the next."""
    app, _ = app
    clock = tmp_path / "clock"
    set_clock(clock, OFF.total_seconds())
    urls = {
        "AMQP_URL": as_service(amqp_url, "ops"),
        "DATABASE_URL": as_service(database_url, "ops"),
    }
    console = wrong_host("services.ops.console.app:create_app", tmp_path, clock, **urls)
    with console as (url, _):
        for off in (OFF, -OFF):
            set_clock(clock, off.total_seconds())
            with httpx.Client(base_url=url, timeout=PATIENCE) as browser:
                decides_nothing(browser, app, settings, db)


def decides_nothing(browser, app, settings, db):
    def is_in(**ago):
        values = {name: func.now() - timedelta(seconds=by) for name, by in ago.items()}
        db.execute(update(OpsSession).values(values))
        db.commit()
        return browser.get("/sessions").status_code == 200

    assert attempt(browser, ADDRESS, PASSWORD) == 303
    # The password waits for its code, for five minutes.
    db.execute(update(OpsSession).values(created_at=func.now() - timedelta(minutes=6)))
    db.commit()
    assert browser.get("/sign-in/code").status_code == 303
    assert attempt(browser, ADDRESS, PASSWORD) == 303
    unused(db)
    assert give_code(browser, app.now()) == 303
    idle, whole = settings.ops_idle_seconds, settings.ops_session_seconds
    assert is_in(seen_at=idle - 60)
    assert is_in(seen_at=idle - 60), "the use before was noted by the database's clock"
    assert is_in(created_at=whole - 60, seen_at=0)
    assert not is_in(created_at=whole + 60, seen_at=0)
    assert not is_in(created_at=0, seen_at=idle + 60)
