"""HAProxy and nginx in front of the ingress, with the configurations that the documents print."""

import datetime
import json
import os
import re
import socket
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.folders import ROOT
from stack.processes import spawn, stop
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Port
from tests.integration.arrange import PATIENCE, sign, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, Sender, approved
from tests.programs import program

RAW = json.dumps(ORDER).encode()
ONE_READ = 16_384  # bytes; what HAProxy has room for
PRIVATE = ("/metrics", "/readyz", "/healthz")


def printed(language):
    """The configuration in docs/proxies.md."""
    text = (ROOT / "docs/proxies.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return found


def replaced(text, *pairs):
    """The text with what belongs to this machine; each of it stands there."""
    for old, new in pairs:
        assert re.search(old, text, re.MULTILINE), old
        text = re.sub(old, new, text, flags=re.MULTILINE)
    return text


@dataclass
class Place:
    """Where a proxy is to run.

    Attributes:
        folder: for its files.
        port: where it listens.
        ingress: host and port of what is behind it.
        certificate: a file with a key and its certificate.
    """

    folder: Path
    port: Port
    ingress: str
    certificate: Path

    def haproxy(self, text):
        path = self.folder / "haproxy.cfg"
        # Slow clients are told so sooner; nobody logs to a container.
        path.write_text(replaced(text, ("http-request 10s", "http-request 2s")))
        return (program("haproxy"), "-db", "-f", str(path))

    def documented_haproxy(self):
        return self.haproxy(
            replaced(
                printed("haproxy"),
                (r"bind :443", f"bind 127.0.0.1:{self.port}"),
                (r"/etc/haproxy/fellow.pem", str(self.certificate)),
                (r"192\.0\.2\.1\d:8000", self.ingress),
            )
        )

    def door(self):
        """Of docker-compose.yml; without the resolver of a Docker engine."""
        return self.haproxy(
            replaced(
                (ROOT / "deploy/haproxy.cfg").read_text(),
                (r"^resolvers engine\n(    .*\n)+", ""),
                (r"bind :8000", f"bind 127.0.0.1:{self.port}"),
                (r"^    server-template .*$", f"    server one {self.ingress}"),
            )
        )

    def documented_nginx(self):
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        own = [f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds]
        text = replaced(
            printed("nginx"),
            (r"listen 443", f"listen 127.0.0.1:{self.port}"),
            (r"/etc/nginx/fellow.pem", str(self.certificate)),
            (r"192\.0\.2\.1\d:8000", self.ingress),
            (r"_timeout 10s", "_timeout 2s"),
            (r"^http \{", "http {\n    " + "\n    ".join(own)),
            (r"access_log \S+", f"access_log {self.folder}/access.log"),
        )
        path = self.folder / "nginx.conf"
        path.write_text(text)
        # As root its workers would be somebody who may not look into our folder.
        user = "user root; " if os.geteuid() == 0 else ""
        alone = f"daemon off; {user}pid {self.folder}/nginx.pid; error_log stderr warn;"
        return (program("nginx"), "-p", str(self.folder), "-c", str(path), "-g", alone)


PROXIES = {
    "HAProxy": (Place.documented_haproxy, True),
    "nginx": (Place.documented_nginx, True),
    "the door": (Place.door, False),
}


@dataclass
class Proxied:
    """An ingress behind a proxy, and a business that sends through it.

    Attributes:
        folder: the proxy's own, with all of its logs.
    """

    folder: Path
    port: int
    tls: ssl.SSLContext | None
    sender: Sender

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        if self.tls is None:
            return connection
        return self.tls.wrap_socket(connection, server_hostname="localhost")

    def exchange(self, *parts):
        """Send, and give what is answered until the other side closes."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                pass  # it has refused already
            return read(connection)

    def order(self, *lines, body=None, close=True):
        """A signed order as bytes."""
        signed = [f"{name}: {value}".encode() for name, value in self.sign().items()]
        length = b"Content-Length: %d" % len(RAW)
        body = (length, RAW) if body is None else (b"Transfer-Encoding: chunked", body)
        ending = [b"Connection: close"] if close else []
        head = (b"POST /api/v1/webhooks/orders/ HTTP/1.1", b"Host: localhost", *signed, *lines)
        return b"\r\n".join((*head, *ending, body[0], b"", body[1]))

    def sign(self):
        return sign(self.sender.secret, RAW)


def read(connection):
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
    except (ConnectionResetError, ssl.SSLError):
        pass
    return received


def read_one(connection):
    """One answer of a kept connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while len(body) < length:
        body += connection.recv(65_536)
    return status(head), json.loads(body)


def status(received):
    return int(received.split()[1]) if received else None


def make_certificate(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def ingress(module_amqp_url, module_database_url, tmp_path_factory):
    environment = {
        "WEB_CONCURRENCY": "1",
        "TRUSTED_PROXIES": "1",
        "REQUEST_SECONDS": "4",
        "SECURITY_CONTACT": "mailto:security@shop.example",
    }
    folder = tmp_path_factory.mktemp("ingress")
    with running_ingress(folder, module_amqp_url, module_database_url, **environment) as api:
        yield api


@pytest.fixture(scope="module", params=PROXIES)
def proxied(request, ingress, tmp_path_factory):
    command, has_tls = PROXIES[request.param]
    folder = tmp_path_factory.mktemp("proxy")
    certificate = folder / "fellow.pem"
    make_certificate(certificate)
    log = folder / "proxy.log"
    with Port() as port, ExitStack() as stack:
        place = Place(folder, port, ingress.url.removeprefix("http://"), certificate)

        def start():
            return spawn(command(place), environment=os.environ, log=log, directory=folder)

        process = Start(request.param, start, (port,), log, LISTEN_SECONDS).wait()
        stack.callback(stop, process, 10)
        tls = ssl.create_default_context(cafile=certificate) if has_tls else None
        yield Proxied(folder, port.number, tls, approved(ingress))


def test_orders_over_one_kept_connection(proxied):
    with proxied.connect() as connection:
        found = []
        for _ in range(3):
            connection.sendall(proxied.order(close=False))
            found.append(read_one(connection))
    assert [code for code, _ in found] == [201] * 3
    assert len({body["order_id"] for _, body in found}) == 3


def test_the_clients_address_is_what_the_proxy_saw(proxied):
    business = proxied.sender
    forged = b"X-Forwarded-For: 203.0.113.9"
    beside = (b"X-Forwarded-Host: evil", b"Forwarded: for=203.0.113.9", b"X-Real-IP: 203.0.113.9")
    trailer = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(RAW), RAW, forged)
    ways = (proxied.order(forged), proxied.order(*beside), proxied.order(body=trailer))
    listed = {"allowed_networks": ["203.0.113.0/24"]}
    # From an address that the list has, as an own mistake would lock its business out.
    there = business.bearer | {"X-Forwarded-For": "203.0.113.9"}
    assert business.api.http.put("/webhook/allowlist/", json=listed, headers=there).is_success
    try:
        until(lambda: status(proxied.exchange(ways[0])) == 403, "the list holds")
        for way in ways:
            answer = proxied.exchange(way)
            assert status(answer) == 403
            assert b"127.0.0.1" in answer
    finally:
        business.api.http.put("/webhook/allowlist/", json={"allowed_networks": []}, headers=there)
    until(lambda: status(proxied.exchange(proxied.order())) == 201, "the list is gone")


@pytest.mark.parametrize(
    "form",
    ["{}", "/{}", "/api/..{}", "/api/%2e%2e{}", "http://localhost{}", "{}?/api/", "{}#/api/"],
)
def test_health_and_metrics_are_not_public(proxied, form):
    for path in PRIVATE:
        request = (
            f"GET {form.format(path)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert status(proxied.exchange(request.encode())) in {400, 404}
    assert proxied.sender.api.http.get(f"{proxied.sender.api.url}/metrics").status_code == 200


def test_whom_to_tell_of_a_weakness_is(proxied):
    request = (
        b"GET /.well-known/security.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = proxied.exchange(request)
    assert status(answer) == 200
    assert b"Contact: mailto:security@shop.example" in answer


LARGE = {
    "150 fields": [b"N%d: v" % n for n in range(150)],
    "200,000 fields": [b"A: b"] * 200_000,
    "one field of 9,000 bytes": [b"A: " + b"a" * 9_000],
    "one field of 1 MB": [b"A: " + b"a" * 1_000_000],
    "40,000 bytes in all": [b"N%d: %s" % (n, b"a" * 4_000) for n in range(10)],
}


def refusals(sent, *statuses):
    """What a proxy may answer; of what it has not read whole the answer may be lost in a reset."""
    return {*statuses, None} if len(sent) > ONE_READ else {*statuses}


@pytest.mark.parametrize("kind", LARGE)
def test_large_heads_are_refused_and_the_next_order_is_taken(proxied, kind):
    sent = proxied.order(*LARGE[kind])
    assert status(proxied.exchange(sent)) in refusals(sent, 400, 431)
    assert status(proxied.exchange(proxied.order())) == 201


@pytest.mark.parametrize("length", [9_000, 100_000])
def test_long_targets_are_refused(proxied, length):
    head = b"GET /api/v1/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    sent = head % (b"p" * length)
    assert status(proxied.exchange(sent)) in refusals(sent, 400, 414)
    assert status(proxied.exchange(proxied.order())) == 201


def test_an_offered_upgrade_is_ignored(proxied):
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    with proxied.connect() as connection:
        for _ in range(2):
            connection.sendall(proxied.order(*offer, close=False))
            assert read_one(connection)[0] == 201


def test_a_trailer_loses_no_order(proxied):
    body = b"%x\r\n%s\r\n0\r\nX-API-Key: whsk_other\r\nHost: other\r\n\r\n" % (len(RAW), RAW)
    assert status(proxied.exchange(proxied.order(body=body))) == 201


def test_slow_clients_are_ended(proxied):
    order = proxied.order(close=False)
    with proxied.connect() as half_head, proxied.connect() as half_body:
        half_head.sendall(order[:100])
        half_body.sendall(order[:-10])
        assert status(proxied.exchange(proxied.order())) == 201
        # nginx closes without a word.
        assert status(read(half_head)) in {408, None}
        # HAProxy hands our answer on and waits for the rest.
        assert status(half_body.recv(65_536)) in {408, None}


def test_a_body_is_asked_for(proxied):
    order = proxied.order(b"Expect: 100-continue")
    with proxied.connect() as connection:
        connection.sendall(order[: -len(RAW)])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(RAW)
        assert status(read(connection)) == 201


def test_no_access_log_has_a_token_or_a_customer(proxied):
    head = "GET {} HTTP/1.1\r\nHost: localhost\r\n{}Connection: close\r\n\r\n"
    for path in (
        "/api/v1/unsubscribe/?token=lead",
        "/api/v1/tracking/lead/",
        "/api/v1/orders/?customer_email=lead",
    ):
        referer = f"Referer: https://localhost{path}\r\n"
        assert status(proxied.exchange(head.format(path, referer).encode())) in {400, 401, 404}
    if (log := proxied.folder / "access.log").exists():
        until(lambda: "/api/v1/orders/ 401" in log.read_text(), "the line is written")
    for file in proxied.folder.glob("*.log"):
        assert "lead" not in file.read_text()
