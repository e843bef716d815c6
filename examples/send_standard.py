"""Send one order by Standard Webhooks: `pip install requests standardwebhooks`.

Needs WEBHOOK_SECRET and ACCOUNT_ID, the `id` in the answer to signing in; API_URL is the address
of Order Fellow.
"""

import json
import os
import uuid
from datetime import UTC, datetime

import requests
from standardwebhooks.webhooks import Webhook

webhook = Webhook(os.environ["WEBHOOK_SECRET"])  # whsec_..., from GET /api/v1/webhook/secret/
base = os.environ.get("API_URL", "http://127.0.0.1:8000") + "/api/v1/webhooks/"
body = json.dumps(
    {
        "customer_details": {"name": "Zoë Ade", "email": "zoe@example.com", "phone": "+2348000000"},
        "item_summary": "2 × blue kettle",
        "address": "12 Marina Road, Lagos",
        "tracking_status": "PENDING",
    }
)
event_id = f"msg_{uuid.uuid4()}"  # reuse it when you retry after no answer
now = datetime.now(UTC)
headers = {
    "Content-Type": "application/json",
    "webhook-id": event_id,
    "webhook-timestamp": str(int(now.timestamp())),
    "webhook-signature": webhook.sign(event_id, now, body),
}
url = f"{base}{os.environ['ACCOUNT_ID']}/orders/"
response = requests.post(url, data=body.encode(), headers=headers, timeout=10)
print(response.status_code, response.text)
response.raise_for_status()
