#!/bin/sh
# Send one signed order with curl and openssl. Needs WEBHOOK_SECRET; API_URL is the address of Order Fellow.
# While they run, `ps` shows the secret to others on the machine.
set -eu
number="A-$(date +%s)-$$" # your order number, unique for each order
body='{"order_number": "'$number'", "customer_details": {"name": "Zoë Ade", "email": "zoe@example.com", "phone": "+2348000000"}, "item_summary": "2 × blue kettle", "address": "12 Marina Road, Lagos", "tracking_status": "PENDING"}'
signature=$(printf %s "$body" | openssl dgst -sha256 -hmac "$WEBHOOK_SECRET" | sed 's/^.*= *//')
curl --fail-with-body --silent --show-error --max-time 10 \
  "${API_URL:-http://127.0.0.1:8000}/api/v1/webhooks/orders/" \
  -H "Content-Type: application/json" \
  -H "X-API-Key: $WEBHOOK_SECRET" \
  -H "X-Webhook-Signature: $signature" \
  --data-binary "$body"
