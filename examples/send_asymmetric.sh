#!/bin/sh
# Send one order signed with your private key, with curl and OpenSSL 3. Needs WEBHOOK_KEY, the file of the
# private key whose public key is registered, and ACCOUNT_ID; API_URL is the address of Order Fellow.
set -eu
body='{"customer_details": {"name": "Zoë Ade", "email": "zoe@example.com", "phone": "+2348000000"}, "item_summary": "2 × blue kettle", "address": "12 Marina Road, Lagos", "tracking_status": "PENDING"}'
id="msg_$(openssl rand -hex 16)" # reuse it when you retry after no answer
stamp=$(date +%s)
signed=$(mktemp) # a file, because Ed25519 needs the whole input
trap 'rm -f "$signed"' EXIT
printf '%s.%s.%s' "$id" "$stamp" "$body" > "$signed"
signature=$(openssl pkeyutl -sign -inkey "$WEBHOOK_KEY" -rawin -in "$signed" | base64 | tr -d '\n')
curl --fail-with-body --silent --show-error --max-time 10 \
  "${API_URL:-http://127.0.0.1:8000}/api/v1/webhooks/$ACCOUNT_ID/orders/" \
  -H "Content-Type: application/json" \
  -H "webhook-id: $id" \
  -H "webhook-timestamp: $stamp" \
  -H "webhook-signature: v1a,$signature" \
  --data-binary "$body"
