"""`POST /webhooks/test/`: why a signature is right or wrong."""
