// Send one signed order: java SendOrder.java (Java 11 or later). Needs WEBHOOK_SECRET; API_URL is
// the address of Order Fellow.
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.UUID;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class SendOrder {
    public static void main(String[] args) throws Exception {
        String secret = System.getenv("WEBHOOK_SECRET"); // whsk_..., from GET /api/v1/webhook/secret/
        String base = System.getenv().getOrDefault("API_URL", "http://127.0.0.1:8000");
        String number = "A-" + UUID.randomUUID(); // your order number, unique for each order
        String order = "{\"order_number\": \"" + number + "\", \"customer_details\": {\"name\": \"Zo\u00eb Ade\","
            + " \"email\": \"zoe@example.com\", \"phone\": \"+2348000000\"},"
            + " \"item_summary\": \"2 \u00d7 blue kettle\","
            + " \"address\": \"12 Marina Road, Lagos\", \"tracking_status\": \"PENDING\"}";
        byte[] body = order.getBytes(StandardCharsets.UTF_8); // sign exactly the bytes that are sent
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        String signature = String.format("%064x", new BigInteger(1, mac.doFinal(body)));
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/api/v1/webhooks/orders/"))
            .timeout(Duration.ofSeconds(10))
            .header("Content-Type", "application/json")
            .header("X-API-Key", secret)
            .header("X-Webhook-Signature", signature)
            .POST(HttpRequest.BodyPublishers.ofByteArray(body))
            .build();
        HttpResponse<String> response =
            HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.body());
        System.exit(response.statusCode() == 201 ? 0 : 1);
    }
}
