"""The standing proof: an order of a business of our own goes the whole way each minute."""
