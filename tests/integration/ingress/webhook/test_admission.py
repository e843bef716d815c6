"""Allowlists, rates and what the headers say, to rightly signed requests and to no others."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from shared.bus.contract.events import AccountChanged, decode
from shared.db.models import OutboxMessage, WebhookPolicy
from tests.integration.arrange import by_each_worker, depth, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import approved

HERE, THERE = "203.0.113.7", "2001:db8::7"
LISTED = ["198.51.100.0/24", "2001:db8::/48"]


@pytest.fixture(scope="module")
def behind_a_proxy(api, tmp_path_factory):
    with running_ingress(
        tmp_path_factory.mktemp("proxied"), api.amqp_url, api.database_url, TRUSTED_PROXIES="1"
    ) as found:
        yield found


def allow(business, *networks, address=HERE):
    headers = business.bearer | {"X-Forwarded-For": address}
    return business.api.http.put(
        "/webhook/allowlist/", json={"allowed_networks": list(networks)}, headers=headers
    )


def statuses(business, address):
    """What every worker answers, by each scheme."""
    sent = {"X-Forwarded-For": address}
    sends = (business.send, business.standard)
    answers = by_each_worker(business.api.pid, lambda: [send(**sent) for send in sends])
    return {answer.status_code for both in answers for answer in both}


def test_an_allowlist_holds_within_a_moment_by_either_scheme(behind_a_proxy):
    business = approved(behind_a_proxy)
    assert statuses(business, HERE) == {201}
    answer = allow(business, *LISTED)
    assert answer.status_code == 200
    until(lambda: statuses(business, HERE) == {403}, "in every worker")
    assert statuses(business, THERE) == {201}
    assert statuses(business, "::ffff:198.51.100.9") == {201}
    refused = business.send(**{"X-Forwarded-For": HERE})
    assert refused.json()["code"] == "address_not_allowed"
    assert HERE in refused.json()["error"]
    allow(business)
    until(lambda: statuses(business, HERE) == {201}, "from anywhere again")


def test_a_stranger_does_not_learn_that_there_is_an_allowlist(behind_a_proxy):
    business = approved(behind_a_proxy)
    allow(business, *LISTED)
    until(lambda: statuses(business, HERE) == {403}, "in every worker")
    wrong = {"X-Forwarded-For": HERE, "X-Webhook-Signature": "0" * 64}
    assert business.send(**wrong).json()["code"] == "invalid_signature"
    wrong = {"X-Forwarded-For": HERE, "webhook-signature": "v1,AAAA"}
    assert business.standard(**wrong).json()["code"] == "invalid_signature"
    assert "ratelimit-limit" not in business.standard(**wrong).headers


def test_the_answer_warns_who_is_not_in_the_list_themselves(behind_a_proxy):
    business = approved(behind_a_proxy)
    answer = allow(business, "198.51.100.7/32", "198.51.100.7", "2001:DB8::/48").json()
    assert answer["allowed_networks"] == ["198.51.100.7/32", "2001:db8::/48"]
    assert (answer["your_address"], answer["your_address_is_allowed"]) == (HERE, False)
    assert HERE in answer["warning"]
    kept = behind_a_proxy.http.get(
        "/webhook/allowlist/", headers=business.bearer | {"X-Forwarded-For": THERE}
    ).json()
    assert (kept["your_address_is_allowed"], kept["warning"]) == (True, None)
    assert kept["allowed_networks"] == answer["allowed_networks"]


def choose(business, only):
    return business.api.http.put(
        "/webhook/schemes/", json={"standard_webhooks_only": only}, headers=business.bearer
    )


def test_an_account_may_refuse_the_scheme_whose_copies_are_new_orders(behind_a_proxy):
    business = approved(behind_a_proxy)
    copies = [business.send() for _ in range(3)]
    assert len({answer.json()["order_id"] for answer in copies}) == 3
    assert choose(business, True).json() == {"standard_webhooks_only": True}
    shown = business.api.http.get("/webhook/schemes/", headers=business.bearer)
    assert shown.json() == {"standard_webhooks_only": True}

    def plain():
        return {each.status_code for each in by_each_worker(business.api.pid, business.send)}

    until(lambda: plain() == {403}, "in every worker")
    refused = business.send()
    assert refused.json()["code"] == "scheme_not_allowed"
    same = [business.standard(id_="msg_1") for _ in range(3)]
    assert len({answer.json()["order_id"] for answer in same}) == 1
    # Who cannot sign learns nothing of it.
    assert business.send(**{"X-Webhook-Signature": "0" * 64}).json()["code"] == "invalid_signature"
    choose(business, False)
    until(lambda: plain() == {201}, "by both again")
    choose(business, False)
    with behind_a_proxy.session() as session:
        told = [
            fact.what
            for row in session.scalars(select(OutboxMessage).order_by(OutboxMessage.sequence))
            if isinstance(fact := decode(row.type, row.body), AccountChanged)
            and fact.account_id == business.account_id
        ]
    assert told == ["standard_webhooks_only", "both_schemes"]


@pytest.mark.parametrize(
    ("networks", "code"),
    [
        (["203.0.113.7/24"], "invalid_network"),
        (["kettle.example"], "invalid_network"),
        (["203.0.113.0/24", ""], "invalid_body"),
        ([5], "invalid_body"),
        (["x" * 65], "invalid_body"),
        (["203.0.113.7"] * 101, "invalid_body"),
    ],
)
def test_a_list_that_is_none_changes_nothing(behind_a_proxy, networks, code):
    business = approved(behind_a_proxy)
    allow(business, "203.0.113.0/24")
    answer = allow(business, *networks)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    kept = behind_a_proxy.http.get("/webhook/allowlist/", headers=business.bearer).json()
    assert kept["allowed_networks"] == ["203.0.113.0/24"]


def test_an_account_without_a_policy_sees_an_open_list(api, sender):
    shown = api.http.get("/webhook/allowlist/", headers=sender.bearer).json()
    assert (shown["allowed_networks"], shown["warning"]) == ([], None)
    assert api.http.get("/webhook/allowlist/").status_code == 401


def set_rate(api, business, rate):
    with api.session() as session:
        session.execute(
            insert(WebhookPolicy)
            .values(account_id=business.account_id, rate_per_second=rate)
            .on_conflict_do_update(index_elements=["account_id"], set_={"rate_per_second": rate})
        )
        session.commit()


def test_a_rate_of_ones_own_and_what_the_headers_say(api, sender):
    first = sender.send()
    assert first.headers["ratelimit-limit"] == "5000"
    assert 0 <= int(first.headers["ratelimit-remaining"]) < 5000
    assert first.headers["ratelimit-reset"] == "1"
    assert first.headers["ratelimit-policy"] == '"account";q=5000;w=1'
    left = first.headers["ratelimit-remaining"]
    assert first.headers["ratelimit"] == f'"account";r={left};t=1'
    set_rate(api, sender, 2)

    def limits(send):
        return {each.headers.get("ratelimit-limit") for each in by_each_worker(api.pid, send)}

    until(lambda: limits(sender.send) == {"2"}, "in every worker")
    refused = until(
        lambda: next(
            (a for a in (sender.standard() for _ in range(20)) if a.status_code == 429), 0
        ),
        "too fast",
    )
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.headers["ratelimit"] == '"account";r=0;t=1'
    assert int(refused.headers["retry-after"]) >= 1
    # What is refused for its body counts too, and says so.
    assert "ratelimit-limit" in sender.send(b"{").headers
    set_rate(api, sender, None)
    until(lambda: limits(sender.standard) == {"5000"}, "the default again")


def test_a_retiring_secret_is_told_its_end(api, sender):
    shown = api.http.get("/webhook/secret/", headers=sender.bearer).json()
    assert "sunset" not in sender.send().headers
    replaced = datetime.now(UTC)
    api.http.post("/webhook/secret/", headers=sender.bearer)
    for send in (sender.send, sender.standard, lambda: sender.send(b"{")):
        told = until(lambda send=send: "sunset" in (a := send()).headers and a, "retiring")
        assert told.status_code in {201, 400}
        end = datetime.fromisoformat(shown["expires_at"])
        assert parsedate_to_datetime(told.headers["sunset"]) == end.replace(microsecond=0)
        stamp = int(told.headers["deprecation"].removeprefix("@"))
        assert abs(stamp - replaced.timestamp()) < 60
        assert told.headers["link"].startswith("<http")
        assert 'rel="deprecation"' in told.headers["link"]
    assert "sunset" not in sender.send(**{"X-Webhook-Signature": "0" * 64}).headers


def test_a_blocked_accounts_secret_is_refused_until_it_is_unblocked(behind_a_proxy):
    business, other = approved(behind_a_proxy), approved(behind_a_proxy)
    with behind_a_proxy.session() as session:
        blocked = insert(WebhookPolicy).values(
            account_id=business.account_id, blocked_at=func.now()
        )
        session.execute(blocked)
        session.commit()
        until(lambda: statuses(business, HERE) == {403}, "refused in every worker")
        assert business.send().json()["code"] == "account_blocked"
        # Nobody learns of it who has not its secret.
        assert business.send(**{"X-Webhook-Signature": "0" * 64}).json()["code"] == (
            "invalid_signature"
        )
        assert statuses(other, HERE) == {201}
        mine = update(WebhookPolicy).where(WebhookPolicy.account_id == business.account_id)
        session.execute(mine.values(blocked_at=None))
        session.commit()
    until(lambda: statuses(business, HERE) == {201}, "taken again")


def test_a_secret_that_is_fetched_in_a_loop_is_told_of_once_a_worker(behind_a_proxy):
    business = approved(behind_a_proxy)
    for _ in range(20):
        answer = behind_a_proxy.http.get("/webhook/secret/", headers=business.bearer)
        assert answer.status_code == 200
    with behind_a_proxy.session() as session:
        rows = session.query(OutboxMessage).filter_by(correlation_id=str(business.account_id))
        told = sum(row.type == "secret.shown" for row in rows)
    assert 1 <= told <= 4  # two workers, and a day may have ended


def test_what_was_shown_and_what_was_allowed_are_told_with_from_where(behind_a_proxy):
    business = approved(behind_a_proxy)
    for address in (HERE, HERE, f"{HERE}:4711", THERE):
        seen = {"X-Forwarded-For": address}
        answer = behind_a_proxy.http.get("/webhook/secret/", headers=business.bearer | seen)
        assert answer.status_code == 200
    allow(business, *LISTED)
    with behind_a_proxy.session() as session:
        rows = session.query(OutboxMessage).filter_by(correlation_id=str(business.account_id))
        told = [(row.message_id, decode(row.type, row.body)) for row in rows]
    shown = {(id_, fact.address) for id_, fact in told if fact.TYPE == "secret.shown"}
    # By its id the second of a day from one place is the first, to whoever hears of it.
    assert {address for _, address in shown} == {HERE, THERE}
    assert len({id_ for id_, _ in shown}) in (2, 3, 4)  # a day may have ended
    (allowed,) = (fact for _, fact in told if fact.TYPE == "webhook.allowlist_changed")
    assert (allowed.address, allowed.allowed_networks) == (HERE, tuple(LISTED))


def test_an_expired_secret_of_a_business_that_may_have_none_promises_no_other(behind_a_proxy):
    """It was told that a new one was made; and each use by each worker was a dead letter."""
    business = approved(behind_a_proxy)
    with behind_a_proxy.engine.begin() as hand:
        theirs = {"account": business.account_id}
        expire = "UPDATE webhook_secrets SET state = 'expired', expires_at = now() WHERE "
        hand.execute(text(expire + "account_id = :account"), theirs)
        revoke = "UPDATE kyc_applications SET status = 'revoked' WHERE account_id = :account"
        hand.execute(text(revoke), theirs)

    def codes():
        sends = (business.send, business.standard)
        answers = by_each_worker(behind_a_proxy.pid, lambda: [send() for send in sends])
        return {answer.json().get("code") for both in answers for answer in both}

    until(lambda: codes() == {"invalid_api_key", "invalid_signature"}, "every worker knows")
    assert depth(behind_a_proxy.amqp_url, "secrets.rotate") == 0
    with behind_a_proxy.session() as session:
        query = select(OutboxMessage.type).where(OutboxMessage.exchange == "commands")
        assert session.scalars(query).all() == []
