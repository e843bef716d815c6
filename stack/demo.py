"""`make demo`: the whole story, for real, in front of your eyes.

Everything goes through the doors that users have: HTTP, the bus, the mailbox.
"""

import email.message
import hashlib
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from amqp import Message
from kombu import Connection
from rich.console import Console
from rich.markup import escape

from stack.browser import Browser, NoFormError
from stack.folders import hold_venv
from stack.mailbox import Maildir, text_of
from stack.processes import stop_on_signals
from stack.supervisor import MODULES
from stack.system import OPS_USER, STACK, CannotRunError, System, system

ORDERS = 20
PATIENCE = 30.0  # seconds for any one thing to happen

T = TypeVar("T")
console = Console(highlight=False, soft_wrap=True)  # an address is one, however long


class StoryError(Exception):
    """A step did not go as it should; the message says which."""


def main() -> int:
    """Play the story; returns the exit code."""
    stop_on_signals()
    hold_venv()
    console.print("[bold]Order Fellow: the whole story, on real RabbitMQ, PostgreSQL and SMTP[/]\n")
    try:
        with system("demo", STACK / "demo", console) as running:
            console.print(
                f"While it plays, {running.ops_url} shows it: sign in as {OPS_USER}, "
                f"{running.ops_password}. The businesses' portal is at {running.portal_url}, and a "
                f"customer's page at {running.portal_url}/track/<the token of an email>\n",
                markup=False,
            )
            try:
                Story(running).play()
            except (StoryError, NoFormError, httpx.HTTPError) as error:
                console.print(f"[red]The story stops here:[/] {escape(str(error))}")
                for name in MODULES:
                    tail = f"{name}: {running.supervisor.tail(name)}"
                    console.print(tail, style="dim", markup=False)
                return 1
    except CannotRunError as error:
        console.print(f"[red]Order Fellow cannot run:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    console.print(
        "\nEverything is stopped again. [bold]make run[/] keeps a system running, with its docs at "
        "/api/v1/docs/ and the\nops console for every queue, order and dead letter. "
        "docs/architecture.md walks an order through the code."
    )
    return 0


class Story:
    """The story of one business and its customers.

    Args:
        running: where it happens.
    """

    def __init__(self, running: System) -> None:
        self._running = running
        self._http = httpx.Client(base_url=f"{running.api_url}/api/v1", timeout=10, trust_env=False)
        self._mailbox = Maildir(running.mailbox)
        self._portal = Browser(running.portal_url)
        self._business = f"it-{secrets.token_hex(3)}@kettle.example"
        self._password = ""
        self._step = 0

    def play(self) -> None:
        """From registration to the customers' emails."""
        password = secrets.token_urlsafe(16)
        self._say("A business registers", "POST /api/v1/users/auth/register/")
        registration = {
            "company_name": "Kettle & Co",
            "email": self._business,
            "password": password,
        }
        account = self._post("/users/auth/register/", registration, 201)

        self._say("It proves its email address with the code that was mailed", "notifier.urgent")
        mail = self._mail_to(self._business, "code")
        code = re.search(r"\b\d{6}\b", text_of(mail))
        if code is None:
            raise StoryError("the email holds no code")
        self._post("/users/verify-otp/", {"email": self._business, "otp": code[0]}, 200)

        self._say("It signs in and submits KYC", "POST /api/v1/kyc/")
        self._password = password
        self._sign_in()
        facts = {
            "business_registration_number": "RC-1001",
            "business_address": "1 Broad Street, Lagos",
            "contact_person_details": "Ada Eze, +234 800 000 0000",
        }
        self._post("/kyc/", facts, 201)
        refused = self._get("/webhook/secret/", 403)
        self._show(f"without approval: 403 {refused['error']}")

        decision = {"decision": "approve", "account_id": account["id"]}
        self._say("An operator publishes the approval to the bus", "exchange commands, kyc.decide")
        self._publish(decision)
        self._show(json.dumps(decision))

        self._say("The approval issues a webhook secret", "kyc.approved -> secret.issued")
        secret = self._until(self._secret, "a secret")
        self._show(f"{secret[:12]}... (never in an email)")
        self._mail_to(self._business, "webhook secret is ready")

        self._say("The business signs in to its portal", f"{self._running.portal_url}/sign-in")
        self._portal.get("/sign-in")
        self._portal.send("/sign-in", email=self._business, password=password)
        steps = list(zip(self._portal.texts("strong"), self._portal.texts("li"), strict=False))
        if "Until you are live" not in self._portal.texts("h2") or not steps:
            raise StoryError(f"the portal does not show what is left to do: {self._portal.page}")
        for title, said in steps:
            self._show(f"[{' ' if 'not done' in said else 'x'}] {title}")

        self._say(f"The business signs and sends {ORDERS} orders", "POST /api/v1/webhooks/orders/")
        started = time.perf_counter()
        orders = [self._send(secret, self._order(number)) for number in range(ORDERS)]
        taken = time.perf_counter() - started
        self._show(f"{ORDERS} times 201, {taken / ORDERS * 1000:.1f} ms each, one after the other")
        forged = self._http.post(
            "/webhooks/orders/",
            content=b"{}",
            headers={"X-API-Key": secret, "X-Webhook-Signature": "0" * 64},
        )
        if forged.status_code != 401:
            raise StoryError(f"a forged order was answered {forged.status_code}: {forged.text}")
        self._show(f"a forged one: 401 {forged.json()['error']}")

        self._say("Each customer is told, once", "order.recorded -> notifier.orders -> SMTP")
        mails = [self._mail_to(f"customer{number}@shop.example", "") for number in range(ORDERS)]
        console.print(f"\n{_quote(mails[0])}\n", style="dim", markup=False)

        link = _tracking_link(mails[0])
        self._say("A customer opens the link in it, without signing in", link)
        self._open(link, "pending")

        self._say("An order moves on", "order.status_changed")
        change = {
            "type": "order.status_changed",
            "order_id": orders[0],
            "tracking_status": "IN TRANSIT",
        }
        self._send(secret, change)
        self._mail_to("customer0@shop.example", "in transit")
        detail = self._get(f"/orders/{orders[0]}/", 200)
        history = " -> ".join(entry["tracking_status"] for entry in detail["status_history"])
        self._show(f"GET /orders/{{id}}/: {history}, {len(detail['emails'])} emails")
        self._open(link, "in transit")

        page = f"/orders/{orders[0]}"
        self._say(
            "The business looks at the order in its portal", f"{self._running.portal_url}{page}"
        )
        self._portal.get(page)
        for entry in self._portal.texts("li"):
            self._show(entry)
        console.print("\n[green bold]The whole story went through.[/]")

    def _say(self, what: str, where: str) -> None:
        self._step += 1
        console.print(f"[bold cyan]{self._step}.[/] {what} [dim]({where})[/]")

    def _show(self, text: str) -> None:
        console.print(f"   {text}", markup=False)

    def _post(self, path: str, body: dict[str, Any], expected: int) -> dict[str, Any]:
        answer = self._http.post(path, json=body)
        if answer.status_code != expected:
            raise StoryError(f"{path} answered {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

    def _sign_in(self) -> None:
        credentials = {"email": self._business, "password": self._password}
        tokens = self._post("/users/auth/login/", credentials, 200)
        self._http.headers["Authorization"] = f"Bearer {tokens['access']}"

    def _get(self, path: str, *expected: int) -> dict[str, Any]:
        answer = self._http.get(path)
        if answer.status_code == 401:
            # The access token has expired: the machine may have been suspended.
            self._sign_in()
            answer = self._http.get(path)
        if answer.status_code not in expected:
            raise StoryError(f"{path} answered {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

    def _publish(self, decision: dict[str, str]) -> None:
        # Bare JSON, as an operator would type it into any AMQP tool.
        with Connection(self._running.amqp_url) as connection:
            channel: Any = connection.default_channel
            message = Message(json.dumps(decision))
            channel.basic_publish_confirm(message, exchange="commands", routing_key="kyc.decide")

    def _secret(self) -> str | None:
        return self._get("/webhook/secret/", 200, 403, 404, 503).get("secret_key")

    def _order(self, number: int) -> dict[str, Any]:
        return {
            "customer_details": {
                "name": "Zoë Ade",
                "email": f"customer{number}@shop.example",
                "phone": "+234 800 000 0000",
            },
            "item_summary": f"{number + 1} × blue kettle",  # noqa: RUF001
            "address": "12 Marina Road, Lagos",
            "tracking_status": "PENDING",
        }

    def _send(self, secret: str, order: dict[str, Any]) -> str:
        body = json.dumps(order).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-API-Key": secret, "X-Webhook-Signature": signature}
        answer = self._http.post("/webhooks/orders/", content=body, headers=headers)
        if answer.status_code != 201:
            raise StoryError(f"an order was answered {answer.status_code}: {answer.text}")
        order_id: str = answer.json()["order_id"]
        return order_id

    def _mail_to(self, address: str, subject: str) -> email.message.EmailMessage:
        def find() -> email.message.EmailMessage | None:
            for mail in self._mailbox.emails():
                if address in str(mail["To"]) and subject in str(mail["Subject"]):
                    return mail
            return None

        return self._until(find, f"an email to {address}")

    def _open(self, link: str, status: str) -> None:
        browser = Browser(self._running.portal_url)
        browser.get(link)
        heading = " ".join(browser.texts("h1"))
        if status not in heading:
            raise StoryError(f"{link} says {heading}, and not that the order is {status}")
        self._show(f"the page says: {heading}")

    def _until(self, look: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            self._running.supervisor.watch()
            time.sleep(0.05)
        raise StoryError(f"{what} did not come within {PATIENCE:g} s")


def _tracking_link(mail: email.message.EmailMessage) -> str:
    found = re.search(r"http\S+/track/\S+", text_of(mail))
    if found is None:
        raise StoryError("the email has no link to the order's page")
    return found[0]


def _quote(mail: email.message.EmailMessage) -> str:
    head = f"To: {mail['To']}\nSubject: {mail['Subject']}\n\n{text_of(mail)}"
    return "\n".join(f"   | {line}" for line in head.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
