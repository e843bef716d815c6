// Send one signed order with axios: npm ci, node send_order.mjs. Needs WEBHOOK_SECRET; API_URL is
// the address of Order Fellow.
import { createHmac, randomUUID } from "node:crypto";
import axios from "axios";

const secret = process.env.WEBHOOK_SECRET; // whsk_..., from GET /api/v1/webhook/secret/
const url = `${process.env.API_URL ?? "http://127.0.0.1:8000"}/api/v1/webhooks/orders/`;
const body = JSON.stringify({
  order_number: `A-${randomUUID()}`, // your order number, unique for each order
  customer_details: { name: "Zoë Ade", email: "zoe@example.com", phone: "+2348000000" },
  item_summary: "2 × blue kettle",
  address: "12 Marina Road, Lagos",
  tracking_status: "PENDING",
}); // sign exactly the text that is sent: give axios the string, not the object
const signature = createHmac("sha256", secret).update(body).digest("hex");
const options = {
  headers: {
    "Content-Type": "application/json",
    "X-API-Key": secret,
    "X-Webhook-Signature": signature,
  },
  timeout: 10_000,
  validateStatus: () => true, // do not throw for refusals
};
try {
  const response = await axios.post(url, body, options);
  console.log(response.status, JSON.stringify(response.data));
  process.exitCode = response.status === 201 ? 0 : 1;
} catch (error) {
  console.error(error.code ?? error.message); // the whole error contains the headers with the secret
  process.exitCode = 1;
}
