"""What a mail step of a peer does: text and HTML over a connection that is kept, then a row."""

import json
import os
import smtplib
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from sqlalchemy import create_engine, text

from shared.ids import new_id

SENDER = "Order Fellow <no-reply@order-fellow.example>"
COMPANY = "Kettle & Co"

_local = threading.local()
_engine = create_engine(os.environ["DATABASE_URL"], pool_size=16)
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=lambda name: bool(name) and name.endswith(".html"),
)
_SENT = text("""
    INSERT INTO email_deliveries (id, fact_id, subject_id, recipient, template, message_id, state)
    VALUES (:id, :order_id, :order_id, :recipient, 'order', :order_id, 'sent')
    ON CONFLICT DO NOTHING
""")


def known(order: dict[str, Any]) -> dict[str, str]:
    """What the templates say of an order."""
    return {
        "company": COMPANY,
        "name": order["customer_details"]["name"],
        "order_id": order["order_id"],
        "items": order["item_summary"],
        "address": order["address"],
        "status": order["tracking_status"],
    }


def mail(event: str | dict[str, Any]) -> None:
    """Email one order's customer, and write down that it was done."""
    order = json.loads(event) if isinstance(event, str) else event
    words, recipient = known(order), order["customer_details"]["email"]
    email = EmailMessage()
    email["Subject"] = f"{COMPANY} has your order"
    email["From"], email["To"] = SENDER, recipient
    email.set_content(_templates.get_template("order.jinja.txt").render(words))
    email.add_alternative(_templates.get_template("order.html").render(words), subtype="html")
    _connection().send_message(email)
    sent(order["order_id"], recipient)


def sent(order_id: str, recipient: str) -> None:
    """Write down that an order's email was taken."""
    with _engine.begin() as connection:
        connection.execute(_SENT, {"id": new_id(), "order_id": order_id, "recipient": recipient})


def _connection() -> smtplib.SMTP:
    kept: smtplib.SMTP | None = getattr(_local, "connection", None)
    if kept is None:
        kept = _local.connection = smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"]))
    return kept
