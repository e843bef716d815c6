// Send one signed order with axios: npm ci, node send_order.mjs. Needs WEBHOOK_SECRET; API_URL says
// where Order Fellow is.
import { createHmac } from "node:crypto";
import axios from "axios";

const secret = process.env.WEBHOOK_SECRET; // whsk_..., from GET /api/v1/webhook/secret/
const url = `${process.env.API_URL ?? "http://127.0.0.1:8000"}/api/v1/webhooks/orders/`;
const body = JSON.stringify({
  order_number: `A-${Date.now()}`, // your own, one for each order
  customer_details: { name: "Zoë Ade", email: "zoe@example.com", phone: "+2348000000" },
  item_summary: "2 × blue kettle",
  address: "12 Marina Road, Lagos",
  tracking_status: "PENDING",
}); // sign the very text that is sent: hand axios the string, not the object
const signature = createHmac("sha256", secret).update(body).digest("hex");
const options = {
  headers: {
    "Content-Type": "application/json",
    "X-API-Key": secret,
    "X-Webhook-Signature": signature,
  },
  timeout: 10_000,
  validateStatus: () => true, // a refusal is an answer too
};
try {
  const response = await axios.post(url, body, options);
  console.log(response.status, JSON.stringify(response.data));
  process.exitCode = response.status === 201 ? 0 : 1;
} catch (error) {
  console.error(error.code ?? error.message); // the whole of it has the headers, with the secret
  process.exitCode = 1;
}
