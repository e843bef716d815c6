"""A portal on a host whose clock is wrong: what it holds goes by the database's."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.db.models import PortalSession
from stack.servers.credentials import as_service
from tests.integration.portal.conftest import Stage
from tests.integration.wrong_clocks import set_clock, wrong_host

OFF = timedelta(minutes=15)


@pytest.mark.parametrize("off", [OFF, -OFF], ids=["ahead", "behind"])
def test_a_portals_clock_decides_nothing(stage, tmp_path, off):
    clock = tmp_path / "clock"
    set_clock(clock, off.total_seconds())
    given = {
        "DATABASE_URL": as_service(stage.api.database_url, "portal"),
        "PORTAL_API_URL": stage.api.url,
        "PUBLIC_URL": stage.api.url,
        "TRUSTED_PROXIES": "1",
    }
    with wrong_host("services.portal.app:create_app", tmp_path, clock, **given) as (url, _):
        browser, _ = Stage(url, stage.api, tmp_path).registered()

        def is_in(seconds):
            with stage.api.session() as session:
                ends = {"expires_at": func.now() + timedelta(seconds=seconds)}
                session.execute(update(PortalSession).values(ends))
                session.commit()
            return "Sign out" in browser.get("/account")

        def held():
            with stage.api.session() as session:
                return [bytes(sealed) for sealed in session.scalars(select(PortalSession.sealed))]

        before = held()
        assert is_in(60)
        assert held() == before, "a token was replaced that is good for minutes"
        assert not is_in(-60)
