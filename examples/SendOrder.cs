// Send one signed order: dotnet run SendOrder.cs (.NET 10 or later), or Mono's
// mcs -r:System.Net.Http SendOrder.cs && mono SendOrder.exe. Needs WEBHOOK_SECRET; API_URL says
// where Order Fellow is.
using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;

public static class SendOrder
{
    public static int Main()
    {
        string secret = Environment.GetEnvironmentVariable("WEBHOOK_SECRET"); // whsk_..., from GET /api/v1/webhook/secret/
        string url = Environment.GetEnvironmentVariable("API_URL") ?? "http://127.0.0.1:8000";
        string number = "A-" + DateTime.UtcNow.Ticks; // your own, one for each order
        string order = "{\"order_number\": \"" + number + "\", \"customer_details\": {\"name\": \"Zo\u00eb Ade\","
            + " \"email\": \"zoe@example.com\", \"phone\": \"+2348000000\"},"
            + " \"item_summary\": \"2 \u00d7 blue kettle\","
            + " \"address\": \"12 Marina Road, Lagos\", \"tracking_status\": \"PENDING\"}";
        byte[] body = Encoding.UTF8.GetBytes(order); // sign the very bytes that are sent
        string signature;
        using (var hmac = new HMACSHA256(Encoding.UTF8.GetBytes(secret)))
            signature = BitConverter.ToString(hmac.ComputeHash(body)).Replace("-", "").ToLowerInvariant();
        // PostAsJsonAsync would serialise anew: other bytes than were signed, or a text within a text.
        var content = new ByteArrayContent(body);
        content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        var request = new HttpRequestMessage(HttpMethod.Post, url + "/api/v1/webhooks/orders/") { Content = content };
        request.Headers.Add("X-API-Key", secret);
        request.Headers.Add("X-Webhook-Signature", signature);
        try
        {
            using (var client = new HttpClient { Timeout = TimeSpan.FromSeconds(10) })
            {
                var response = client.SendAsync(request).GetAwaiter().GetResult();
                string answer = response.Content.ReadAsStringAsync().GetAwaiter().GetResult();
                Console.WriteLine((int)response.StatusCode + " " + answer);
                return (int)response.StatusCode == 201 ? 0 : 1;
            }
        }
        catch (Exception error) // no answer: send it again, with the same number
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }
}
