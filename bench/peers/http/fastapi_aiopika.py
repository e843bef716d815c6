"""FastAPI and aio-pika: one robust connection, each request awaits the confirm of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from bench.peers.checks import AMQP_URL, QUEUE, account_of
from bench.peers.models import Order


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    connection = await aio_pika.connect_robust(AMQP_URL)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        app.state.exchange = channel.default_exchange
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/")
async def accept(request: Request) -> JSONResponse:
    body = await request.body()
    headers = request.headers
    account = account_of(headers.get("x-api-key", ""), headers.get("x-webhook-signature", ""), body)
    if account is None:
        return JSONResponse({"error": "Invalid signature"}, 401)
    try:
        order = Order.model_validate_json(body)
    except ValidationError as error:
        return JSONResponse({"error": str(error)}, 400)
    order_id = str(uuid4())
    await request.app.state.exchange.publish(
        aio_pika.Message(
            order.as_event(order_id, account).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=order_id,
        ),
        routing_key=QUEUE,
    )
    return JSONResponse({"status": "success", "order_id": order_id}, 201)
