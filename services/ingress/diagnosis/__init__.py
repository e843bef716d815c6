"""`POST /webhooks/test/`: explains why a signature is right or wrong."""
