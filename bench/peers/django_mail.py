"""`python -m bench.peers.django_mail PORT COUNT each|kept`: Django's emails, text and HTML.

With a new connection for each, as `send_mail` has it, or over one that is kept.
"""

import json
import sys
import time
from pathlib import Path

import django
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection, send_mail
from django.template.loader import get_template

from bench.load import orders

TEMPLATES = Path(__file__).with_name("templates")
SENDER = "Order Fellow <no-reply@order-fellow.example>"


def main(port: int, count: int, how: str) -> None:
    settings.configure(
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [TEMPLATES],
            }
        ],
    )
    django.setup()
    text, html = get_template("order.txt"), get_template("order.html")
    kept = get_connection() if how == "kept" else None
    if kept is not None:
        kept.open()
    begin = time.perf_counter()
    for number in range(count):
        known = {
            "company": "Kettle & Co",
            "name": orders.name(number),
            "order_id": f"0199-{number}",
            "items": orders.item_summary(number),
            "address": orders.address(number),
            "status": "pending",
        }
        subject = f"{known['company']} has your order"
        body, page = text.render(known), html.render(known)
        recipient = orders.email(number)
        if kept is None:
            send_mail(subject, body, SENDER, [recipient], html_message=page)
        else:
            email = EmailMultiAlternatives(subject, body, SENDER, [recipient], connection=kept)
            email.attach_alternative(page, "text/html")
            email.send()
    print(json.dumps({"seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
