"""A step of an upload: temporary refusals are retried, others are final."""

import base64
import json
import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from services.portal.pages.uploads import sending
from services.portal.pages.uploads.carried import Carried
from services.portal.pages.uploads.sending import NO_ANSWER, step
from services.portal.web import rendering
from services.portal.web.api import Refused
from shared.ids import new_id
from shared.web.results import PageError

ACCOUNT = str(new_id())
ORDER = {
    "customer_details": {"name": "Ada", "email": "ada@shop.example"},
    "item_summary": "kettle",
    "address": "here",
}
SECRET = {"signing_secret": "whsec_" + base64.b64encode(bytes(32)).decode()}


class Asking:
    """The API, which answers as it is told, and after that accepts."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.keys = []
        self.told = []

    def get(self, _):
        return SECRET

    def post(self, path, said):
        assert path == "/webhooks/files/"
        self.told.append(said)

    def webhook(self, account_id, signed, body):
        assert account_id == ACCOUNT
        self.keys.append(signed["webhook-id"])
        if self.answers:
            answer = self.answers.pop(0)
            time.sleep(0.02)
            raise answer


def upload(count=3):
    lines = (json.dumps(ORDER | {"address": f"here {number}"}) for number in range(count))
    held = Carried("orders.jsonl", "\n".join(lines).encode())
    return held, held.file(ACCOUNT)


def refused(status, code, retry_after=0):
    return Refused(status, {"code": code, "error": f"It is {code}."}, retry_after)


def test_a_temporary_refusal_at_the_end_of_the_step():
    held, file = upload()
    later = refused(429, "rate_limited", 1)
    assert step(Asking(later), ACCOUNT, file, held, seconds=0.01) == (
        replace(held, is_told=True),
        "",
    )


def test_a_row_is_sent_again_under_its_key_until_it_is_answered():
    held, file = upload()
    api = Asking(PageError(503, "It is away."))
    assert step(api, ACCOUNT, file, held) == (replace(held, is_told=True), NO_ANSWER)
    held, why = step(api, ACCOUNT, file, held)
    assert (held.accepted, why) == (3, "")
    assert api.keys == [file.taken[0].key, *(line.key for line in file.taken)]


def test_a_file_is_announced_once_and_only_when_its_step_runs(monkeypatch):
    """However often its page comes again before the first row has its answer."""
    held, file = upload()
    api = Asking(refused(429, "rate_limited", 1))
    with monkeypatch.context() as full:
        full.setattr(sending, "_at_work", {str(new_id()) for _ in range(sending.AT_ONCE)})
        assert step(api, ACCOUNT, file, held) == (held, "")
    assert api.told == []
    held, _ = step(api, ACCOUNT, file, held, seconds=0.01)
    assert (held.done, len(api.told)) == (0, 1)
    held, _ = step(api, ACCOUNT, file, held)
    assert held.accepted == 3
    assert [(said["orders"], said["updates"]) for said in api.told] == [(3, 0)]


def test_a_business_has_one_concurrent_step():
    """Four would keep every other business waiting."""
    held, file = upload(1)
    beside = []

    class Sending(Asking):
        def webhook(self, account_id, signed, body):
            beside.append(step(Asking(), ACCOUNT, file, held))
            super().webhook(account_id, signed, body)

    assert step(Sending(), ACCOUNT, file, held)[0].accepted == 1
    assert beside == [(held, "")]
    assert step(Asking(), ACCOUNT, file, held)[0].accepted == 1


def test_a_refused_row_is_kept_with_its_reason_and_the_rest_is_sent():
    held, file = upload()
    held, why = step(Asking(refused(422, "idempotency_key_reused")), ACCOUNT, file, held)
    assert (held.done, held.accepted, why) == (3, 2, "")
    assert held.failed == {1: ("idempotency_key_reused", "It is idempotency_key_reused.")}


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_refusal_of_all_rows_stops_the_step(status):
    held, file = upload()
    api = Asking(refused(status, "account_blocked"))
    assert step(api, ACCOUNT, file, held) == (replace(held, is_told=True), "It is account_blocked.")
    assert len(api.keys) == 1


def test_a_signed_out_browser_is_led_to_the_sign_in():
    held, file = upload()
    with pytest.raises(Refused):
        step(Asking(refused(401, "not_signed_in")), ACCOUNT, file, held)


def test_a_row_over_the_webhooks_limit_is_refused_in_the_preview():
    held, _ = upload()
    most = max(len(line) for line in held.content.splitlines())
    long = json.dumps(ORDER | {"address": "here" * most}).encode()
    held = replace(held, content=held.content + b"\n" + long, body_bytes=most)
    file = held.file(ACCOUNT)
    assert [one.line.number for one in file.refused] == [4]
    assert f"{most:,} bytes" in file.refused[0].faults[0]
    assert len(file.taken) == 3


def test_warnings_are_shown_in_the_preview():
    """As the webhook would beside each 201, which nobody sees of two thousand."""
    rows = [ORDER | {"orderNumber": n, "status": "DELIVERED"} for n in ("A-1", "A-2")]
    rows += [ORDER | {"orderNumber": "A-3", "address": ""}, ORDER]
    held = Carried("orders.jsonl", "\n".join(map(json.dumps, rows)).encode())
    file = held.file(ACCOUNT)
    assert (len(file.taken), len(file.refused)) == (3, 1)
    told = {sentence.partition(" is not read")[0]: rows for sentence, rows in file.warnings}
    assert told == {"$.orderNumber": 2, "$.status": 2}
    about = {"file": file, "upload": "x", "form_token": "x", "shown": 50, "path": "/upload"}
    business = SimpleNamespace(account_id=ACCOUNT, company_name="Kettle Co", email="a@shop.example")
    page = rendering.render("upload_preview.html", about | {"business": business, "note": ""})
    assert "was $.order_number meant? (2 rows)" in page
