"""Falcon WSGI with pika's blocking connection: a thread a request, one confirm at a time."""

import threading
from typing import Any
from uuid import uuid4

import falcon
import pika
from pydantic import ValidationError

from bench.peers.checks import AMQP_URL, QUEUE, account_of
from bench.peers.models import Order

_local = threading.local()
_PERSISTENT = 2


def _channel() -> Any:
    channel = getattr(_local, "channel", None)
    if channel is None:
        channel = _local.channel = pika.BlockingConnection(pika.URLParameters(AMQP_URL)).channel()
        channel.confirm_delivery()
    return channel


class Orders:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = req.bounded_stream.read()
        account = account_of(
            req.get_header("x-api-key", default=""),
            req.get_header("x-webhook-signature", default=""),
            body,
        )
        if account is None:
            raise falcon.HTTPUnauthorized(description="Invalid signature")
        try:
            order = Order.model_validate_json(body)
        except ValidationError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from None
        order_id = str(uuid4())
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=_PERSISTENT, message_id=order_id
        )
        event = order.as_event(order_id, account).encode()
        _channel().basic_publish("", QUEUE, event, properties)
        resp.status = falcon.HTTP_201
        resp.media = {"status": "success", "order_id": order_id}


app = falcon.App()
app.add_route("/", Orders())
