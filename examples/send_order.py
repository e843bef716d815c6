"""Send one signed order: `pip install requests`.

Needs WEBHOOK_SECRET; API_URL is the address of Order Fellow.
"""

import hashlib
import hmac
import json
import os
import time

import requests

secret = os.environ["WEBHOOK_SECRET"]  # whsk_..., from GET /api/v1/webhook/secret/
url = os.environ.get("API_URL", "http://127.0.0.1:8000") + "/api/v1/webhooks/orders/"
order = {
    "order_number": f"A-{time.time_ns()}",  # your number, unique for each order; updates use it
    "customer_details": {"name": "Zoë Ade", "email": "zoe@example.com", "phone": "+2348000000"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road, Lagos",
    "tracking_status": "PENDING",
}
body = json.dumps(order).encode()  # sign exactly the bytes that are sent
signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
headers = {
    "Content-Type": "application/json",
    "X-API-Key": secret,
    "X-Webhook-Signature": signature,
}
response = requests.post(url, data=body, headers=headers, timeout=10)
print(response.status_code, response.text)
response.raise_for_status()
