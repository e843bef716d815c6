"""Requests to our own servers use no proxy."""

import http.server
import re
import threading

import pytest

from shared.http import direct
from stack import system
from stack.folders import ROOT


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"ready"')

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_http_proxy_is_ignored(address):
    with direct.ask(address, seconds=5) as answer:
        assert answer.read() == b'"ready"'


def test_a_system_starts_with_an_unreachable_http_proxy(address):
    assert system._says(address, b'"ready"')


CLIENT = re.compile(r"httpx\.(?:Client|get|post)\([^)]*\)")


def test_requests_to_our_servers_use_direct():
    sources = [
        file for folder in ("shared", "services", "stack") for file in (ROOT / folder).rglob("*.py")
    ]
    clients = []
    for file in sources:
        text = file.read_text()
        assert "urlopen(" not in text, file
        clients += [(file, found) for found in CLIENT.findall(text)]
    assert clients
    assert [(file, client) for file, client in clients if "trust_env=False" not in client] == []
