"""Send one order signed with your private key: `pip install requests cryptography`.

Needs WEBHOOK_KEY, the file of the private key whose public key is registered, and ACCOUNT_ID;
API_URL is the address of Order Fellow.
"""

import base64
import json
import os
import time
import uuid
from pathlib import Path

import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key

key = load_pem_private_key(Path(os.environ["WEBHOOK_KEY"]).read_bytes(), None)
base = os.environ.get("API_URL", "http://127.0.0.1:8000") + "/api/v1/webhooks/"
order = {
    "customer_details": {"name": "Zoë Ade", "email": "zoe@example.com", "phone": "+2348000000"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road, Lagos",
    "tracking_status": "PENDING",
}
body = json.dumps(order).encode()  # sign exactly the bytes that are sent
event_id = f"msg_{uuid.uuid4()}"  # reuse it when you retry after no answer
stamp = str(int(time.time()))
signature = base64.b64encode(key.sign(f"{event_id}.{stamp}.".encode() + body)).decode()
headers = {
    "Content-Type": "application/json",
    "webhook-id": event_id,
    "webhook-timestamp": stamp,
    "webhook-signature": f"v1a,{signature}",
}
url = f"{base}{os.environ['ACCOUNT_ID']}/orders/"
response = requests.post(url, data=body, headers=headers, timeout=10)
print(response.status_code, response.text)
response.raise_for_status()
