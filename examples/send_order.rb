# Send one signed order. Needs WEBHOOK_SECRET; API_URL is the address of Order Fellow.
require "json"
require "net/http"
require "openssl"

secret = ENV.fetch("WEBHOOK_SECRET") # whsk_..., from GET /api/v1/webhook/secret/
url = URI("#{ENV.fetch("API_URL", "http://127.0.0.1:8000")}/api/v1/webhooks/orders/")
body = JSON.generate(
  order_number: "A-#{Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond)}", # your order number, unique for each order
  customer_details: { name: "Zoë Ade", email: "zoe@example.com", phone: "+2348000000" },
  item_summary: "2 × blue kettle",
  address: "12 Marina Road, Lagos",
  tracking_status: "PENDING"
) # sign exactly the text that is sent
request = Net::HTTP::Post.new(
  url,
  "Content-Type" => "application/json",
  "X-API-Key" => secret,
  "X-Webhook-Signature" => OpenSSL::HMAC.hexdigest("SHA256", secret, body)
)
response = Net::HTTP.start(url.host, url.port, use_ssl: url.scheme == "https", read_timeout: 10) do |http|
  http.request(request, body)
end
puts "#{response.code} #{response.body}"
exit response.code == "201"
