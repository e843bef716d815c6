"""What happened to an order or an account, and what still waits."""
