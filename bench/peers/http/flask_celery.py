"""Flask and Celery: `apply_async` to a quorum queue, confirms on, gthread workers."""

from uuid import uuid4

from flask import Flask, Response, jsonify, request
from pydantic import ValidationError

from bench.peers.celery_app import record
from bench.peers.checks import QUEUE, account_of
from bench.peers.models import Order

app = Flask(__name__)


@app.post("/")
def accept() -> tuple[Response, int]:
    body = request.get_data()
    headers = request.headers
    account = account_of(headers.get("x-api-key", ""), headers.get("x-webhook-signature", ""), body)
    if account is None:
        return jsonify(error="Invalid signature"), 401
    try:
        order = Order.model_validate_json(body)
    except ValidationError as error:
        return jsonify(error=str(error)), 400
    order_id = str(uuid4())
    record.apply_async((order.as_event(order_id, account),), task_id=order_id, queue=QUEUE)
    return jsonify(status="success", order_id=order_id), 201
