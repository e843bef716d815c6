"""An account's own orders over HTTP, and nobody else's."""

from datetime import UTC, date, datetime, timedelta
from itertools import chain

import pytest
from sqlalchemy import text

from services.ops.timelines.order import order_trail
from services.orders import conflicts
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.contract.events import TrackingStatus
from shared.db.models import EmailDelivery
from shared.ids import derived_id, new_id, order_of_number
from shared.security import tracking
from tests.integration.arrange import access_token, account, order_created, received, status_changed


def as_(account_):
    return {"Authorization": f"Bearer {access_token(account_.id)}"}


@pytest.fixture
def business(api):
    with api.session() as session:
        return account(session)


@pytest.fixture
def me(business):
    return as_(business)


def record_orders(api, *events, time=None):
    with api.session() as session:
        failures = record(
            session,
            [
                received(
                    e,
                    id=e.order_id if type(e).__name__ == "OrderCreated" else new_id(),
                    **({"time": time} if time else {}),
                )
                for e in events
            ],
            lanes=Lanes(1_000, 100),
            unknown=Unknown(1_000),
        )
        session.commit()
        assert not failures


def test_an_order_with_its_history_and_emails(api, business, me):
    created = order_created(business.id)
    record_orders(api, created)
    record_orders(api, status_changed(created, TrackingStatus.IN_TRANSIT, "Left the depot."))
    with api.session() as session:
        session.add(
            EmailDelivery(
                fact_id=new_id(),
                subject_id=str(created.order_id),
                recipient="zoe@shop.example",
                template="order_received",
                message_id="<1@order-fellow.example>",
                state="sent",
            )
        )
        session.commit()
    answer = api.http.get(f"/orders/{created.order_id}/", headers=me)
    assert answer.status_code == 200
    found = answer.json()
    assert found["id"] == str(created.order_id)
    assert found["customer_details"]["name"] == "Zoë Ade"
    assert found["tracking_status"] == "IN_TRANSIT"
    assert [(h["tracking_status"], h["note"]) for h in found["status_history"]] == [
        ("PENDING", ""),
        ("IN_TRANSIT", "Left the depot."),
    ]
    assert [(e["template"], e["state"]) for e in found["emails"]] == [("order_received", "sent")]


SAID = """
    INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)
    SELECT gen_random_uuid(), :order_id, 'IN_TRANSIT', number || repeat('.', 1000),
           now() + make_interval(secs => (number + 1) / 2), true
    FROM generate_series(1, 700) AS number
"""
MAILED = """
    INSERT INTO email_deliveries
        (id, fact_id, subject_id, recipient, template, message_id, state, at)
    SELECT gen_random_uuid(), gen_random_uuid(), :order_id, 'zoe@shop.example', 'order_status',
           '<' || number || '@order-fellow.example>', 'sent', now() + make_interval(secs => number)
    FROM generate_series(1, 700) AS number
"""


def test_of_a_long_history_the_latest_is_shown_and_all_of_it_page_by_page(api, business, me):
    """A courier's app that says where it is each ten seconds says so 8,640 times a day."""
    created = order_created(business.id)
    record_orders(api, created)
    with api.session() as session:
        session.execute(text(SAID), {"order_id": created.order_id})
        session.execute(text(MAILED), {"order_id": str(created.order_id)})
        session.commit()

    def numbers(history):
        return [int(said["note"].partition(".")[0] or 0) for said in history]

    latest = [*range(201, 701)]
    for path, headers in (
        (f"/orders/{created.order_id}/", me),
        (f"/tracking/{tracking.token_for(created.order_id)}/", {}),
    ):
        found = api.http.get(path, headers=headers).json()
        assert sorted(numbers(found["status_history"])) == latest
        assert found["history_is_complete"] is False
        times = [said["at"] for said in found["status_history"]]
        assert times == sorted(times)
    found = api.http.get(f"/orders/{created.order_id}/", headers=me).json()
    assert [email["message_id"] for email in found["emails"]] == [
        f"<{number}@order-fellow.example>" for number in latest
    ]
    assert found["emails_are_complete"] is False
    pages, cursor = [], ""
    while cursor is not None:
        given = {"limit": "150"} | ({"cursor": cursor} if cursor else {})
        url = f"/orders/{created.order_id}/history/"
        page = api.http.get(url, params=given, headers=me).json()
        pages.append(numbers(page["results"]))
        cursor = page["next"]
    assert [len(page) for page in pages] == [150, 150, 150, 150, 101]
    assert sorted(chain(*pages)) == [0, *range(1, 701)]
    assert set(pages[0]) == set(range(551, 701))
    strange = as_(business_of_another(api))
    assert api.http.get(url, headers=strange).json()["code"] == "order_not_found"
    bad = api.http.get(url, params={"cursor": "x"}, headers=me)
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_query")


def business_of_another(api):
    with api.session() as session:
        return account(session)


def test_what_is_short_is_shown_whole_and_says_so(api, business, me):
    created = order_created(business.id)
    record_orders(api, created)
    found = api.http.get(f"/orders/{created.order_id}/", headers=me).json()
    assert (found["history_is_complete"], found["emails_are_complete"]) == (True, True)
    page = api.http.get(f"/orders/{created.order_id}/history/", headers=me).json()
    assert page == {"results": found["status_history"], "next": None}


def test_the_pages_hold_every_order_once_newest_first(api, business, me):
    orders = [order_created(business.id) for _ in range(25)]
    record_orders(api, *orders)
    seen, cursor, pages = [], None, 0
    while True:
        query = {"limit": 10} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/orders/", params=query, headers=me).json()
        seen += [o["id"] for o in page["results"]]
        pages += 1
        cursor = page["next"]
        if cursor is None:
            break
        # An order that arrives while somebody turns pages moves nothing.
        record_orders(api, order_created(business.id))
    assert pages == 3
    assert seen == sorted((str(o.order_id) for o in orders), reverse=True)


def test_a_last_page_that_is_full_has_no_next(api, business, me):
    record_orders(api, *(order_created(business.id) for _ in range(5)))
    page = api.http.get("/orders/", params={"limit": 5}, headers=me).json()
    assert (len(page["results"]), page["next"]) == (5, None)


def test_filters(api, business, me):
    ada = order_created(business.id)
    bola = order_created(business.id)
    record_orders(api, ada, time=datetime(2026, 1, 1, tzinfo=UTC))
    record_orders(api, bola, time=datetime(2026, 2, 1, tzinfo=UTC))
    record_orders(
        api,
        status_changed(bola, TrackingStatus.DELIVERED),
        time=datetime(2026, 2, 2, tzinfo=UTC),
    )

    def ids(**query):
        answer = api.http.get("/orders/", params=query, headers=me)
        assert answer.status_code == 200, answer.text
        return {o["id"] for o in answer.json()["results"]}

    numbered = order_created(
        business.id, order_id=order_of_number(business.id, "A-1"), order_number="A-1"
    )
    with api.session() as session:
        other = account(session)
    theirs = order_created(other.id, order_id=order_of_number(other.id, "A-1"), order_number="A-1")
    record_orders(api, numbered, theirs, time=datetime(2025, 1, 1, tzinfo=UTC))
    assert ids(order_number="A-1") == ids(order_number=" A-1 ") == {str(numbered.order_id)}
    assert ids(order_number="a-1") == ids(order_number="A-1", status="delivered") == set()
    assert ids(status="delivered") == {str(bola.order_id)}
    assert ids(status="PENDING", created_from="2026-01-01T00:00:00Z") == {str(ada.order_id)}
    assert ids(customer_email="zoe@shop.example", created_from="2026-01-01T00:00:00Z") == {
        str(ada.order_id),
        str(bola.order_id),
    }
    assert ids(customer_email="nobody@shop.example") == set()
    assert ids(customer_email="ZOE@Shop.example") == ids(customer_email="zoe@shop.example") != set()
    assert ids(created_from="2026-01-15T00:00:00Z") == {str(bola.order_id)}
    assert ids(created_to="2026-01-15T00:00:00+00:00") == {
        str(ada.order_id),
        str(numbered.order_id),
    }


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "many"},
        {"cursor": "!"},
        {"cursor": "abc"},
        {"cursor": "\x00"},
        {"status": "LOST"},
        {"created_from": "yesterday"},
        {"created_from": "2026-01-01T00:00:00"},
        {"customer_email": "x" * 255},
        {"customer_email": "a\x00b"},
        {"order_number": ""},
        {"order_number": "x" * 101},
        {"order_number": "a\x00b"},
    ],
)
def test_a_bad_query_is_a_400(api, me, query):
    answer = api.http.get("/orders/", params=query, headers=me)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")


def test_a_time_of_any_offset_is_understood_or_refused(api, me):
    def status(stamp):
        return api.http.get("/orders/", params={"created_from": stamp}, headers=me).status_code

    assert status("2026-04-25T11:21:50-22:07") == 200
    assert status("0001-01-01T00:00:00+23:59") == 400
    assert status("9999-12-31T23:59:59-23:59") == 400


def test_another_accounts_order_is_not_there(api, business, me):
    with api.session() as session:
        other = account(session)
    theirs = order_created(other.id)
    record_orders(api, theirs)
    refused = api.http.get(f"/orders/{theirs.order_id}/", headers=me)
    unknown = api.http.get(f"/orders/{new_id()}/", headers=me)
    nonsense = api.http.get("/orders/7/", headers=me)
    assert refused.status_code == unknown.status_code == nonsense.status_code == 404
    assert refused.json() == unknown.json() == nonsense.json()
    assert api.http.get("/orders/", headers=me).json()["results"] == []
    assert api.http.get(f"/orders/{theirs.order_id}/", headers=as_(other)).status_code == 200


def test_nothing_without_a_token(api):
    assert api.http.get("/orders/").status_code == 401
    assert api.http.get(f"/orders/{new_id()}/").status_code == 401


def test_times_are_in_utc(api, business, me):
    created = order_created(business.id)
    record_orders(api, created)
    (found,) = api.http.get("/orders/", headers=me).json()["results"]
    assert datetime.fromisoformat(found["created_at"]).utcoffset() == timedelta(0)


def test_what_was_sent_under_the_same_key_is_shown_with_the_order(api, business, me):
    created = order_created(business.id)
    record_orders(api, created)
    other = order_created(business.id, order_id=created.order_id, address="elsewhere")
    with api.session() as session:
        record(session, [received(other)], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        session.commit()
    found = api.http.get(f"/orders/{created.order_id}/", headers=me).json()
    assert found["address"] == created.address
    (conflict,) = found["conflicts"]
    assert conflict["address"] == "elsewhere"
    assert conflict["customer_details"]["name"] == "Zoë Ade"
    assert (conflict["order_number"], conflict["metadata"]) == (None, None)


def test_of_more_than_are_kept_under_a_key_the_rest_is_told(api, business, me):
    created = order_created(business.id)
    others = [
        received(order_created(business.id, order_id=created.order_id, address=f"other {number}"))
        for number in range(conflicts.MAX_KEPT + 1)
    ]
    record_orders(api, created)
    for some, is_all in ((others[:-1], True), (others[-1:], False)):
        with api.session() as session:
            record(session, some, lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
            session.commit()
            trail = order_trail(session, created.order_id)
        found = api.http.get(f"/orders/{created.order_id}/", headers=me).json()
        assert len(found["conflicts"]) == conflicts.MAX_KEPT
        assert found["conflicts_are_complete"] is is_all
        steps = [step.text for step in trail.steps if step.what == "conflict"]
        assert [text.startswith("more orders") for text in steps].count(True) == (not is_all)


def test_numbers_metadata_and_parcels_are_shown(api, business, me):
    said = {
        "order_number": "A-7",
        "metadata": {"branch": "Lekki"},
        "carrier": "Swift",
        "tracking_number": "JD0146",
        "tracking_url": "https://track.carrier.example/JD0146",
        "estimated_delivery": date(2026, 12, 3),
    }
    created = order_created(business.id, order_id=order_of_number(business.id, "A-7"), **said)
    record_orders(api, created)
    other = order_created(
        business.id, **said | {"order_id": created.order_id, "metadata": {"branch": "Yaba"}}
    )
    with api.session() as session:
        record(session, [received(other)], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        session.commit()
    shown = said | {"estimated_delivery": "2026-12-03"}
    (listed,) = api.http.get("/orders/", headers=me).json()["results"]
    found = api.http.get(f"/orders/{created.order_id}/", headers=me).json()
    for one in (listed, found):
        assert {name: one[name] for name in shown} == shown
    (history,) = found["status_history"]
    parcel = {n: v for n, v in shown.items() if n not in ("order_number", "metadata")}
    assert {name: history[name] for name in parcel} == parcel
    (conflict,) = found["conflicts"]
    assert {name: conflict[name] for name in shown} == shown | {"metadata": {"branch": "Yaba"}}


def test_orders_with_derived_ids_are_listed_by_acceptance(api, business, me):
    orders = [order_created(business.id, order_id=derived_id("order", n)) for n in range(12)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for n, created in enumerate(orders):
        # Two share each moment: the id decides between them, and no page loses one.
        record_orders(api, created, time=start + timedelta(seconds=n // 2))
    seen, cursor = [], None
    while True:
        query = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/orders/", params=query, headers=me).json()
        seen += page["results"]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(o["id"] for o in seen) == sorted(str(o.order_id) for o in orders)
    times = [datetime.fromisoformat(o["created_at"]) for o in seen]
    assert times == sorted(times, reverse=True)
