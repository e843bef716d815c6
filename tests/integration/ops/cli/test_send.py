"""`fellow send` against a real ingress."""

import http.server
import json
import os
import threading

import pytest
from kombu import Connection

from tests.integration.arrange import depth, take, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved
from tests.integration.ops.command import run_fellow


@pytest.fixture(scope="module")
def sender(module_amqp_url, module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ingress")
    with running_ingress(folder, module_amqp_url, module_database_url) as api:
        yield approved(api)


def fellow_send(sender, *arguments, stdin=b"", **environment):
    named = {"API_URL": sender.api.url, "WEBHOOK_SECRET": sender.secret} | environment
    return run_fellow(("send", *map(str, arguments)), {**os.environ, **named}, stdin)


def counts(out):
    rows = [line.split() for line in out.splitlines()]
    return {row[1]: int(row[0]) for row in rows if row[0].isdecimal()}


def test_a_file_is_sent_and_what_failed_can_be_mended_and_sent_again(sender, tmp_path):
    path = tmp_path / "orders.jsonl"
    orders = [ORDER | {"item_summary": f"kettle {number}"} for number in range(50)]
    orders[7] = ORDER | {"item_summary": ""}
    path.write_text("".join(json.dumps(order) + "\n" for order in orders) + "{oops\n")
    before = depth(sender.api.amqp_url, "orders.intake")
    code, out, err = fellow_send(sender, path)
    assert (code, counts(out)) == (1, {"accepted": 49, "invalid_body": 1, "not_json": 1})
    assert "p99" in out
    assert "line 8: invalid_body" in err
    until(lambda: depth(sender.api.amqp_url, "orders.intake") == before + 49, "on the queue")
    failed = tmp_path / "orders.failed.jsonl"
    first, second = map(json.loads, failed.read_text().splitlines())
    first["body"] = json.dumps(ORDER)
    failed.write_text(json.dumps(first))
    code, out, err = fellow_send(sender, failed)
    assert (code, counts(out)) == (0, {"accepted": 1}), err
    assert second["code"] == "not_json"


def test_nothing_is_sent_where_what_fails_could_not_be_kept(sender, tmp_path):
    path, nowhere = tmp_path / "orders.json", tmp_path / "none" / "failed.jsonl"
    path.write_text(json.dumps([ORDER | {"item_summary": ""}]))
    before = path.read_bytes()
    code, out, err = fellow_send(sender, path, "--failures", nowhere)
    assert (code, out, "could not be kept" in err) == (2, "", True), err
    code, out, err = fellow_send(sender, path, "--failures", tmp_path)
    assert (code, out) == (2, ""), err
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [before]


def test_orders_come_from_standard_input_and_the_secret_from_a_file(sender, tmp_path):
    key = tmp_path / "key"
    key.write_text(sender.secret + "\n")
    rows = (
        "name,email,item_summary,address\n"
        "Zoë,zoe@shop.example,kettle,Lagos\n"
        "Ada,ada@shop.example,kettle,Abuja\n"
    )
    code, out, err = fellow_send(
        sender, "-", "--format", "csv", "--key-file", key, stdin=rows.encode(), WEBHOOK_SECRET=""
    )
    assert (code, counts(out)) == (0, {"accepted": 2}), err


def test_a_file_that_is_sent_twice_is_each_order_once(sender, tmp_path):
    with Connection(sender.api.amqp_url) as connection:
        connection.default_channel.queue_purge("orders.intake")
    path = tmp_path / "orders.jsonl"
    # The same order twice in one file is two orders.
    path.write_text((json.dumps(ORDER) + "\n") * 2)
    for _ in range(2):
        assert fellow_send(sender, path)[0] == 0
    ids = [take(sender.api.amqp_url, "orders.intake").properties["message_id"] for _ in range(4)]
    assert [ids.count(id_) for id_ in ids] == [2, 2, 2, 2]


def test_a_wrong_secret_stops_at_once_and_nothing_is_lost(sender, tmp_path):
    path = tmp_path / "orders.jsonl"
    path.write_text((json.dumps(ORDER) + "\n") * 100)
    code, out, err = fellow_send(sender, path, "--connections", "1", WEBHOOK_SECRET="whsk_x")
    assert (code, counts(out)) == (1, {"accepted": 0, "invalid_api_key": 1, "not_sent": 99})
    assert "Invalid API key" in err
    assert len((tmp_path / "orders.failed.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (["nowhere.jsonl"], {}, "cannot be read"),
        (["-"], {}, "no orders"),
        (["-"], {"WEBHOOK_SECRET": ""}, "begins with whsk_"),
        (["-"], {"WEBHOOK_SECRET": "whsec_x"}, "begins with whsk_"),
        (["-", "--format", "json"], {}, "cannot be sent"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(sender, arguments, environment, word):
    code, out, err = fellow_send(sender, *arguments, **environment)
    assert (code, out) == (2, "")
    assert word in err
    assert "Traceback" not in err


def test_an_address_that_is_none(sender):
    code, _, err = fellow_send(sender, "-", "--url", "nonsense", stdin=b"{}")
    assert code == 2
    assert "--url must be like" in err


class Proxy(http.server.BaseHTTPRequestHandler):
    """Of a company: it knows none of our hosts, and keeps what it is asked for."""

    def do_POST(self):
        self.server.asked.append(str(self.headers))
        self.send_error(403)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_secret_is_shown_to_no_proxy_of_the_shell(sender, proxy):
    by = f"http://127.0.0.1:{proxy.server_port}"
    order = json.dumps(ORDER).encode()
    shell = {"http_proxy": by, "HTTPS_PROXY": by}
    code, out, err = fellow_send(sender, "-", stdin=order, **shell)
    assert (code, counts(out), proxy.asked) == (0, {"accepted": 1}, []), err
    # One by SOCKS would need a library that is not here.
    code, out, err = fellow_send(sender, "-", stdin=order, all_proxy="socks5://127.0.0.1:1")
    assert (code, counts(out)) == (0, {"accepted": 1}), err


@pytest.mark.parametrize("named", ["socks5://127.0.0.1:1", "http://127.0.0.1:port", "nonsense://"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(sender, named):
    order = json.dumps(ORDER).encode()
    url = "https://api.elsewhere.example"
    code, out, err = fellow_send(sender, "-", "--url", url, stdin=order, all_proxy=named)
    assert (code, out) == (2, "")
    assert "https_proxy" in err
    assert "Traceback" not in err
