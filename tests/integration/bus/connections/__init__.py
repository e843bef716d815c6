"""How processes come to a broker: by which address, and how it is verified."""
