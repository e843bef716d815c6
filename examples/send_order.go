// Send one signed order: go run send_order.go. Needs WEBHOOK_SECRET; API_URL is the address of Order Fellow.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

type customer struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	Phone string `json:"phone"`
}

type order struct {
	Number         string   `json:"order_number"`
	Customer       customer `json:"customer_details"`
	ItemSummary    string   `json:"item_summary"`
	Address        string   `json:"address"`
	TrackingStatus string   `json:"tracking_status"`
}

func main() {
	secret := os.Getenv("WEBHOOK_SECRET") // whsk_..., from GET /api/v1/webhook/secret/
	base := os.Getenv("API_URL")
	if base == "" {
		base = "http://127.0.0.1:8000"
	}
	body, err := json.Marshal(order{
		Number:         fmt.Sprintf("A-%d", time.Now().UnixNano()), // your order number, unique for each order
		Customer:       customer{"Zoë Ade", "zoe@example.com", "+2348000000"},
		ItemSummary:    "2 × blue kettle",
		Address:        "12 Marina Road, Lagos",
		TrackingStatus: "PENDING",
	}) // sign exactly the bytes that are sent
	if err != nil {
		log.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	request, err := http.NewRequest("POST", base+"/api/v1/webhooks/orders/", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-API-Key", secret)
	request.Header.Set("X-Webhook-Signature", hex.EncodeToString(mac.Sum(nil)))
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.StatusCode, string(answer))
	if response.StatusCode != http.StatusCreated {
		os.Exit(1)
	}
}
