"""TLS to the broker: the chain and the name are verified, by pika and by kombu."""

import asyncio
import ssl
import subprocess
import threading
from urllib.parse import urlsplit

import pytest

from shared.bus.broker.kombu_connection import connect
from shared.bus.contract.message import message_for
from shared.bus.publish.confirms import PublishError
from shared.bus.publish.publisher import Publisher
from tests.integration.arrange import PATIENCE, depth, order_created, until
from tests.programs import program


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            program("openssl"),
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.fixture
def front(settings, certificate):
    """A TLS listener before the broker; yields its URL for a host name."""
    target = urlsplit(settings.amqp_url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[1], certificate[0])
    loop = asyncio.new_event_loop()

    async def pipe(reader, writer):
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    async def serve(reader, writer):
        inside = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(pipe(reader, inside[1]), pipe(inside[0], writer))

    async def begin():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        return server.sockets[0].getsockname()[1]

    port = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    address = f"{target.hostname}:{target.port}"
    yield lambda host: settings.amqp_url.replace(address, f"{host}:{port}").replace(
        "amqp://", "amqps://"
    )
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)


def by_kombu(url):
    with connect(url, timeout=PATIENCE) as connection:
        connection.connect()
        return connection.default_channel.queue_declare("orders.intake", passive=True)


async def publish(url):
    publisher = Publisher(
        url, name="tests", max_outstanding=10, confirm_timeout=PATIENCE, heartbeat=30
    )
    await publisher.start()
    try:
        order = order_created()
        message = message_for(order, source="tests", correlation_id=order.order_id)
        await asyncio.to_thread(until, lambda: is_known(publisher), "it is let in, or not")
        await publisher.send(message)
    finally:
        await publisher.stop()


def is_known(publisher):
    return publisher.state == "connected" or publisher.standing.status.reason


def by_pika(url):
    asyncio.run(publish(url))


def test_a_certificate_that_is_trusted_and_for_this_host(settings, front, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    assert by_kombu(front("localhost")).queue == "orders.intake"
    by_pika(front("localhost"))
    assert depth(settings.amqp_url, "orders.intake") == 1


@pytest.mark.parametrize("by", [by_kombu, by_pika])
def test_a_certificate_for_another_name_is_refused(front, certificate, monkeypatch, by):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    with pytest.raises((ssl.SSLCertVerificationError, PublishError)):
        by(front("127.0.0.1"))


@pytest.mark.parametrize("by", [by_kombu, by_pika])
def test_a_certificate_that_nobody_vouches_for_is_refused(front, by):
    with pytest.raises((ssl.SSLCertVerificationError, PublishError)):
        by(front("localhost"))
