<?php
// Send one signed order with curl. Needs WEBHOOK_SECRET; API_URL is the address of Order Fellow.
$secret = getenv('WEBHOOK_SECRET'); // whsk_..., from GET /api/v1/webhook/secret/
$url = (getenv('API_URL') ?: 'http://127.0.0.1:8000') . '/api/v1/webhooks/orders/';
$body = json_encode([
    'order_number' => 'A-' . bin2hex(random_bytes(8)), // your order number, unique for each order
    'customer_details' => ['name' => 'Zoë Ade', 'email' => 'zoe@example.com', 'phone' => '+2348000000'],
    'item_summary' => '2 × blue kettle',
    'address' => '12 Marina Road, Lagos',
    'tracking_status' => 'PENDING',
]); // sign exactly the text that is sent
$curl = curl_init($url);
curl_setopt_array($curl, [
    CURLOPT_POSTFIELDS => $body,
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 10,
    CURLOPT_HTTPHEADER => [
        'Content-Type: application/json',
        'X-API-Key: ' . $secret,
        'X-Webhook-Signature: ' . hash_hmac('sha256', $body, $secret),
    ],
]);
$answer = curl_exec($curl);
$status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
echo $status, ' ', $answer === false ? curl_error($curl) : $answer, "\n";
exit($status === 201 ? 0 : 1);
