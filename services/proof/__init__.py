"""The standing proof: sends an order of our own business through the whole system each minute."""
