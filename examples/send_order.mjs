// Send one signed order with axios. Needs WEBHOOK_SECRET; API_URL says where Order Fellow is.
import { createHmac } from "node:crypto";
import axios from "axios";

const secret = process.env.WEBHOOK_SECRET; // whsk_..., from GET /api/v1/webhook/secret/
const url = `${process.env.API_URL ?? "http://127.0.0.1:8000"}/api/v1/webhooks/orders/`;
const body = JSON.stringify({
  customer_details: { name: "Zoë Ade", email: "zoe@example.com", phone: "+2348000000" },
  item_summary: "2 × blue kettle",
  address: "12 Marina Road, Lagos",
  tracking_status: "PENDING",
}); // sign the very text that is sent: hand axios the string, not the object
const signature = createHmac("sha256", secret).update(body).digest("hex");
const response = await axios.post(url, body, {
  headers: {
    "Content-Type": "application/json",
    "X-API-Key": secret,
    "X-Webhook-Signature": signature,
  },
  timeout: 10_000,
});
console.log(response.status, JSON.stringify(response.data));
