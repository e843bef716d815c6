"""What a worker knows of secrets and policies, and what keeps it true."""
