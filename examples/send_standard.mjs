// Send one order by Standard Webhooks: npm ci, node send_standard.mjs. Needs WEBHOOK_SECRET and
// ACCOUNT_ID, the `id` in the answer to signing in; API_URL is the address of Order Fellow.
import { randomUUID } from "node:crypto";
import axios from "axios";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET); // whsec_..., from GET /api/v1/webhook/secret/
const base = `${process.env.API_URL ?? "http://127.0.0.1:8000"}/api/v1/webhooks/`;
const body = JSON.stringify({
  customer_details: { name: "Zoë Ade", email: "zoe@example.com", phone: "+2348000000" },
  item_summary: "2 × blue kettle",
  address: "12 Marina Road, Lagos",
  tracking_status: "PENDING",
});
const id = `msg_${randomUUID()}`; // reuse it when you retry after no answer
const now = new Date();
const options = {
  headers: {
    "Content-Type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": Math.floor(now.getTime() / 1000),
    "webhook-signature": webhook.sign(id, now, body),
  },
  timeout: 10_000,
  validateStatus: () => true, // do not throw for refusals
};
try {
  const response = await axios.post(`${base}${process.env.ACCOUNT_ID}/orders/`, body, options);
  console.log(response.status, JSON.stringify(response.data));
  process.exitCode = response.status === 201 ? 0 : 1;
} catch (error) {
  console.error(error.code ?? error.message); // the whole error contains the headers with the secret
  process.exitCode = 1;
}
