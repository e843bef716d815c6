"""Django, all in the request: checked, recorded and mailed before it is answered; no queue."""

import json
import os
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.mail import EmailMultiAlternatives, get_connection
from django.http import HttpRequest, JsonResponse
from django.template.loader import get_template
from django.urls import path
from pydantic import ValidationError

from bench.peers.checks import account_of
from bench.peers.mailing import COMPANY, SENDER, known, sent
from bench.peers.models import Order
from bench.peers.recording import record

_TEMPLATES = "django.template.backends.django.DjangoTemplates"
_local = threading.local()


def accept(request: HttpRequest) -> JsonResponse:
    body, headers = request.body, request.headers
    account = account_of(headers.get("x-api-key", ""), headers.get("x-webhook-signature", ""), body)
    if account is None:
        return JsonResponse({"error": "Invalid signature"}, status=401)
    try:
        order = Order.model_validate_json(body)
    except ValidationError as error:
        return JsonResponse({"error": str(error)}, status=400)
    order_id = str(uuid4())
    event: dict[str, Any] = json.loads(order.as_event(order_id, account))
    record(event, tells=False)
    words = known(event)
    email = EmailMultiAlternatives(
        f"{COMPANY} has your order",
        get_template("order.txt").render(words),
        SENDER,
        [order.customer_details.email],
        connection=_connection(),
    )
    email.attach_alternative(get_template("order.html").render(words), "text/html")
    email.send()
    sent(order_id, order.customer_details.email)
    return JsonResponse({"status": "success", "order_id": order_id}, status=201)


def _connection() -> Any:
    kept = getattr(_local, "connection", None)
    if kept is None:
        kept = _local.connection = get_connection()
        kept.open()
    return kept


settings.configure(
    ALLOWED_HOSTS=["*"],
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=int(os.environ["SMTP_PORT"]),
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(16).hex(),
    TEMPLATES=[{"BACKEND": _TEMPLATES, "DIRS": [Path(__file__).parents[1] / "templates"]}],
)
django.setup()
urlpatterns = [path("", accept)]
app = WSGIHandler()
