"""The sender against a scripted API."""

import asyncio
import hashlib
import hmac
import json

import httpx
import pytest
import typer
from rich.console import Console

from services.ops.cli.businesses import send as command
from services.ops.send import sender as sending
from services.ops.send.sender import Sender
from shared.intake.order_files import read

SECRET = "whsk_secret"
ACCEPTED = httpx.Response(201, json={"status": "success", "order_id": "1"})


def refused(status, code, **headers):
    return httpx.Response(status, json={"error": "Because.", "code": code}, headers=headers)


class Answers:
    """Answers each order as planned for it, then with 201; records the requests."""

    def __init__(self, **plan):
        self.plan = {name: list(answers) for name, answers in plan.items()}
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        name = json.loads(request.content)["item_summary"]
        answers = self.plan.get(name)
        answer = answers.pop(0) if answers else ACCEPTED
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)


def send(answers, *names, **options):
    content = "\n".join(json.dumps({"item_summary": name}) for name in names).encode()

    async def run():
        sender = Sender(
            "http://api.example/", SECRET, transport=httpx.MockTransport(answers), **options
        )
        return await sender.send(read(content, "jsonl"))

    return asyncio.run(run())


def test_every_order_is_signed_and_has_a_key_of_its_own():
    answers = Answers()
    summary = send(answers, "a", "b", "c", connections=2)
    assert (summary.accepted, summary.failures) == (3, [])
    for request in answers.requests:
        assert str(request.url) == "http://api.example/api/v1/webhooks/orders/"
        signature = hmac.new(SECRET.encode(), request.content, hashlib.sha256).hexdigest()
        assert request.headers["x-webhook-signature"] == signature
        assert request.headers["x-api-key"] == SECRET
    assert len({request.headers["idempotency-key"] for request in answers.requests}) == 3


def test_retry_after_is_respected():
    slow, away = refused(429, "rate_limited", **{"Retry-After": "0"}), refused(503, "overloaded")
    away.headers["Retry-After"] = "0"
    answers = Answers(a=[slow, away])
    summary = send(answers, "a")
    assert (summary.accepted, summary.retries) == (1, 2)
    assert len({(r.content, r.headers["idempotency-key"]) for r in answers.requests}) == 1


@pytest.mark.parametrize(
    "shape",
    [
        lambda name: {"order_number": name},
        lambda name: {"type": "order.status_changed", "order_id": name},
        lambda name: {"type": "order.status_changed", "data": {"order_number": name}},
    ],
)
def test_lines_of_one_order_are_sent_in_file_order(shape):
    """With eight connections a line that waits for a retry could be overtaken, and then win."""
    away = refused(503, "overloaded", **{"Retry-After": "0"})
    answers, known = Answers(A1=[away, away], A2=[away]), []

    def answer(request):
        given = answers(request)
        if given.status_code == 201:
            known.append(json.loads(request.content)["item_summary"])
        return given

    lines = [shape(name[0]) | {"item_summary": name} for name in ("A1", "B1", "A2", "A3", "B2")]
    content = "\n".join(map(json.dumps, lines)).encode()

    async def run():
        sender = Sender("http://api.example/", SECRET, transport=httpx.MockTransport(answer))
        return await sender.send(read(content, "jsonl"))

    assert asyncio.run(run()).accepted == len(lines)
    assert [name for name in known if name[0] == "A"] == ["A1", "A2", "A3"]
    assert known.index("B1") < known.index("A1")


def test_a_broken_connection_is_tried_again_under_the_same_key(monkeypatch):
    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.0)
    answers = Answers(a=[httpx.ReadTimeout("slow"), httpx.ConnectError("away")])
    assert send(answers, "a").accepted == 1
    assert len({request.headers["idempotency-key"] for request in answers.requests}) == 1


def test_an_unreachable_server_is_given_up(monkeypatch):
    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(sending, "TRIES", 3)
    answers = Answers(a=[httpx.ConnectError("away")] * 9)
    (failure,) = send(answers, "a").failures
    assert (failure.code, len(answers.requests)) == ("unreachable", 3)


def warning(*sentences):
    return httpx.Response(201, json={"status": "success", "order_id": "1", "warnings": sentences})


def test_warnings_are_printed_once_with_their_count(capsys):
    said = "$.orderNo is not read: was $.order_number meant?"
    odd = httpx.Response(201, json={"warnings": 7}), httpx.Response(201, content=b"OK")
    plan = {"a": [warning(said)], "b": [warning(said, "x")], "c": odd[:1], "d": odd[1:]}
    summary = send(Answers(**plan), *"abcd")
    assert summary.accepted == 4
    assert summary.warned == {said: 2, "x": 1}
    command._print(summary)
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"{said} (2 orders)", "x (1 order)"]
    assert said not in told.out


def test_a_refused_order_is_not_sent_again_and_the_others_go_on():
    summary = send(Answers(b=[refused(400, "invalid_body")]), "a", "b", "c")
    assert (summary.accepted, dict(summary.refused)) == (2, {"invalid_body": 1})
    assert (summary.failures[0].line.number, summary.failures[0].error) == (2, "Because.")


def test_a_refused_secret_stops_sending_and_lists_the_unsent_orders():
    answers = Answers(a=[refused(401, "secret_expired")])
    summary = send(answers, "a", "b", "c", connections=1)
    assert dict(summary.refused) == {"secret_expired": 1, "not_sent": 2}
    assert len(answers.requests) == 1


def test_a_proxys_answer_is_a_failure_of_its_order():
    summary = send(Answers(a=[httpx.Response(502, text="<html>")]), "a")
    assert dict(summary.refused) == {"http_502": 1}


@pytest.mark.parametrize("stopped_after", [0, 1])
def test_stopping_completes_the_requests_in_progress(stopped_after):
    async def run():
        count = 0

        async def answer(_):
            nonlocal count
            count += 1
            if count > stopped_after:
                sender.stop("you stopped it")
            await asyncio.sleep(0)
            return ACCEPTED

        sender = Sender("http://x", SECRET, connections=1, transport=httpx.MockTransport(answer))
        return await sender.send(read(b'{"a":1}\n{"a":2}\n{"a":3}', "jsonl"))

    summary = asyncio.run(run())
    assert summary.accepted == stopped_after + 1
    assert dict(summary.refused) == {"not_sent": 2 - stopped_after}


def test_the_percentiles_of_the_latency():
    summary = sending.Summary(latencies=[float(number) for number in range(1, 101)])
    assert (summary.latency(0.5), summary.latency(0.99)) == (51.0, 100.0)
    assert sending.Summary().latency(0.5) == 0.0


@pytest.mark.parametrize("is_named", [True, False])
def test_an_unwritable_place_for_failures_is_reported(tmp_path, monkeypatch, capsys, is_named):
    """Simulates a folder without permission, which would not stop a superuser."""
    file, nowhere = tmp_path / "orders.jsonl", tmp_path / ("x" * 300)
    file.write_text("{}")
    monkeypatch.setattr(command, "_console", Console(stderr=True, soft_wrap=True))
    if not is_named:
        monkeypatch.setattr(command, "_free", lambda _: nowhere.stat())
    monkeypatch.setenv(command.SECRET_VARIABLE, SECRET)
    with pytest.raises(typer.Exit) as ended:
        command.send(
            str(file), "http://127.0.0.1:1", None, 1, 0.0, nowhere if is_named else None, "", None
        )
    assert ended.value.exit_code == 2
    assert "could not be kept" in capsys.readouterr().err
