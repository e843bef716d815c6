"""How long each page of the console takes over a year's books, and 10,000 dead letters.

One browser, one request at a time: what somebody waits for. Pages about dead letters are told what
the last look at the queue saw; those that look through it now have a bound of their own.

Then the database hangs, or the broker does, keeping its connections: each page is asked for at
once, before anybody has looked, and all of them again once that is known.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from statistics import median
from uuid import UUID

import httpx
from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.contest import Result, Series
from bench.ground import Ground, ground, until
from bench.usage import cpu_seconds
from services.ops.console.web.mount import FORM
from services.ops.users import users
from shared.bus.contract import topology
from shared.ids import new_id
from shared.web.tokens import form_token
from stack.servers.ports import Address, Port
from stack.supervisor import MODULES
from tests.integration.gate import Gate

ORDERS, APPLICATIONS, LETTERS = 200_000, 2_000, 10_000
REPEATS = 7
WANTED = 300.0  # ms
HUNG = 1_000.0
"""ms, while the database or the broker hangs."""
THROUGH_QUEUES = 3_000.0
"""ms, for what fetches 10,000 letters and gives them back."""
NAME, PASSWORD = "ada", token_hex(16)
QUEUE = topology.ORDERS_INTAKE


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("console")
    with ground() as on:
        order, account = _fill(on)
        letter = _bury(on)
        with Session(on.engine) as session, session.begin():
            users.put(session, NAME, "act", PASSWORD)
        port = Port()
        console = on.start_service("ops", listens=port, OPS_PORT=port)
        pages, through = _pages(order, account, letter)
        with httpx.Client(base_url=str(Address(port)), timeout=120, trust_env=False) as browser:
            _sign_in(browser)
            seen = f"/dead/{QUEUE.name}/reasons"
            until(
                lambda: "Looked through" in browser.get(seen).text, "the queue was looked through"
            )
            for wanted, those in ((WANTED, pages), (THROUGH_QUEUES, through)):
                for name, path in those.items():
                    before = cpu_seconds(console.pid)
                    found = _times(browser, path)
                    # Whoever else is on the machine makes it take longer, and no dearer.
                    cpu = 1_000 * (cpu_seconds(console.pid) - before) / (REPEATS + 1)
                    result.series.append(Series(name, "ms", tuple(found)))
                    result.series.append(Series(name, "ms CPU of the console", (cpu,)))
                    say(f"  {median(found):8.0f} ms {cpu:6.0f} ms CPU  {name}")
                    result.at_most(name, wanted, median(found), "ms")
        on.stop(console)
        for server in ("database", "broker"):
            _hang(on, result, say, server, pages)
    result.counted.append(
        f"{ORDERS:,} orders with a history, an email and a request each, {APPLICATIONS:,} "
        f"applications, {LETTERS:,} dead letters; the median of {REPEATS}."
    )
    return result


def _hang(
    on: Ground, result: Result, say: Callable[[str], None], server: str, pages: Mapping[str, str]
) -> None:
    """How long pages take while a server hangs, from the first second on; and that they say so."""
    servers = on.servers
    name = "database_url" if server == "database" else "amqp_url"
    said = f"The {server} does not answer"
    with (
        Gate(getattr(servers, name)) as gate,
        httpx.Client(timeout=120, trust_env=False) as browser,
    ):
        gated = replace(servers, **{name: gate.url})
        port = Port()
        environment = {**gated.for_service("ops"), "OPS_PORT": port}
        console = on.start("-m", MODULES["ops"], environment=environment, listens=port)
        browser.base_url = httpx.URL(str(Address(port)))
        until(lambda: browser.get("/healthz").status_code == 200, "the console answers")
        _sign_in(browser)

        def knows() -> bool:
            return said in browser.get("/").text

        def took(path: str) -> float:
            began = time.monotonic()
            answer = browser.get(path)
            seconds = time.monotonic() - began
            # What needs the database is not there; the first page is, and says why.
            if server == "database" and said not in answer.text and path != "/runbook":
                raise RuntimeError(f"{path} does not say that it hangs: {answer.status_code}")
            return 1_000 * seconds

        until(lambda: "Looked through" in browser.get(f"/dead/{QUEUE.name}").text, "it has looked")
        at_once = {}
        for name, path in pages.items():
            until(lambda: not knows() and browser.get("/kyc").status_code == 200, "all is well")
            gate.stall()
            at_once[name] = took(path)
            gate.open()
        gate.stall()
        until(knows, "it is known")
        later = {name: took(path) for name, path in pages.items()}
        gate.open()
        for when, found in (("at once", at_once), ("once it is known", later)):
            name = f"any page while the {server} hangs, {when}"
            slowest = max(found, key=lambda page: found[page])
            say(f"  {found[slowest]:8.0f} ms  {name}: {slowest}")
            result.series.append(Series(name, "ms", tuple(found.values())))
            result.at_most(name, HUNG, found[slowest], "ms")
        on.stop(console)


def _pages(order: UUID, account: UUID, letter: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What is asked for, by what it is; those that look through queues now apart."""
    dead = f"/dead/{QUEUE.name}"
    return {
        "overview": "/",
        "troubles": "/troubles",
        "runbook": "/runbook",
        "KYC desk": "/kyc",
        "KYC desk, by words": "/kyc?words=Kettle",
        "dead letters": "/dead",
        "outbox": "/outbox",
        "find businesses by a name": "/find?q=Kettle",
        "find an order by its number": "/find?q=N-77",
        "an order": f"/orders/{order}",
        "a business": f"/accounts/{account}",
        "its orders": f"/accounts/{account}/orders",
        "its requests": f"/accounts/{account}/requests",
        "its requests of an error": f"/accounts/{account}/requests?code=invalid_signature",
        "emails": "/emails",
        "emails, refused": "/emails?state=undeliverable",
        "audit log": "/audit",
        "sessions": "/sessions",
        "retry ladder": "/ladder",
        "a page of a dead queue": dead,
        "the last page of a dead queue": f"{dead}?start={LETTERS - 100}",
        "a dead queue, by words": f"{dead}?reason=reason+7",
        "what a queue's letters died of": f"{dead}/reasons",
        "the last letter of a queue": f"{dead}/letter?id={letter}",
        "an order, everywhere": f"/orders/{order}?everywhere=yes",
        "a business, everywhere": f"/accounts/{account}?everywhere=yes",
        "find by a customer's address": "/find?q=c77@shop.example",
    }, {
        "a dead queue, looked through now": f"{dead}?reason=reason+7&now=yes",
        "the last letter of a queue, itself": f"{dead}/letter?id={letter}&now=yes",
    }


def _times(browser: httpx.Client, path: str) -> list[float]:
    found = []
    for turn in range(REPEATS + 1):  # the first is to warm up
        began = time.monotonic()
        answer = browser.get(path)
        took = 1_000 * (time.monotonic() - began)
        if answer.status_code not in (200, 303):
            raise RuntimeError(f"{path}: {answer.status_code}")
        if turn:
            found.append(took)
    return found


def _sign_in(browser: httpx.Client) -> None:
    browser.get("/sign-in")
    form = {"name": NAME, "password": PASSWORD, "form_token": form_token(browser.cookies[FORM])}
    answer = browser.post("/sign-in", data=form)
    if answer.status_code != 303:
        raise RuntimeError(f"not signed in: {answer.status_code}")


def _fill(on: Ground) -> tuple[UUID, UUID]:
    """Write the books; gives an order, and the business that has the most."""
    accounts = on.accounts()
    with on.engine.begin() as connection:
        connection.execute(text("SELECT keep_webhook_request_partitions(30)"))
        for statement in _BOOKS:
            connection.execute(
                text(statement),
                {
                    "accounts": [str(id_) for id_ in accounts],
                    "orders": ORDERS,
                    "applications": APPLICATIONS,
                },
            )
    on.vacuum()
    with on.engine.connect() as connection:
        order = connection.execute(text("SELECT id FROM orders LIMIT 1")).scalar_one()
        most = "SELECT account_id FROM orders GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        return order, connection.execute(text(most)).scalar_one()


def _bury(on: Ground) -> str:
    """Have letters die; gives the id of the last."""
    now, last = datetime.now(UTC).isoformat(timespec="seconds"), ""
    with Connection(on.servers.amqp_url) as connection:
        channel = connection.default_channel
        for number in range(LETTERS):
            last = str(new_id())
            reason = f"Retry: reason {number % 20}"
            headers = {
                "x-attempt": 9,
                "x-reason": reason,
                "x-reasons": [f"{now} {reason}"],
                "x-failed-at": now,
                "x-queue": QUEUE.name,
            }
            message = AmqpMessage(
                b'{"order_id": "x"}' + b" " * 600,
                message_id=last,
                type="order.created",
                correlation_id=str(new_id()),
                delivery_mode=2,
                application_headers=headers,
            )
            channel.basic_publish(message, exchange="dead", routing_key=QUEUE.name)
    until(lambda: on.depth(QUEUE.dead) == LETTERS, "they are dead")
    return last


_BOOKS = (
    """
    INSERT INTO accounts (id, company_name, email, password_hash)
    SELECT gen_random_uuid(), 'Shop ' || n, 'shop' || n || '@kettle.example', '-'
    FROM generate_series(1, :applications) n
    """,
    """
    INSERT INTO kyc_applications (id, account_id, business_registration_number, business_address,
                                  contact_person_details, status)
    SELECT gen_random_uuid(), id, 'RC-' || email, '1 Broad St', '"Ada"', 'pending'
    FROM accounts WHERE email LIKE 'shop%'
    """,
    # A quarter of them of one business.
    """
    INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone,
                        item_summary, address, tracking_status, status_at, status_event_id,
                        accepted_at, recorded_at, order_number)
    SELECT id, (CAST(:accounts AS uuid[]))[CASE WHEN n % 4 = 0 THEN 1 ELSE 1 + n % 64 END],
           'Zoë Ade', 'c' || n || '@shop.example', '', '3 green pots', '12 Marina Road',
           'DELIVERED', at, id, at, at, 'N-' || n
    FROM (SELECT gen_random_uuid() AS id, n, now() - n * interval '20 seconds' AS at
          FROM generate_series(1, :orders) n) AS made
    """,
    """
    INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)
    SELECT id, id, 'PENDING', '', accepted_at, true FROM orders
    """,
    """
    INSERT INTO email_deliveries (id, fact_id, subject_id, recipient, template, message_id, state,
                                  response, at)
    SELECT gen_random_uuid(), gen_random_uuid(), CAST(id AS text), customer_email,
           'order_received', '<x@y>',
           CASE WHEN order_number LIKE '%999' THEN 'undeliverable' ELSE 'sent' END, '', accepted_at
    FROM orders
    """,
    """
    INSERT INTO webhook_requests (at, account_id, accepted, code, event_type, event_id, order_id,
                                  scheme, latency_us, client_address)
    SELECT greatest(date_trunc('day', now()), now() - interval '1 ms' * row_number() OVER ()),
           account_id, true, 'accepted', 'order.created', id, id, 'x-api-key', 900, '203.0.113.7'
    FROM orders
    """,
)
