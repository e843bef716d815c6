"""Who is not mailed: customers who have left, and addresses that were refused."""
