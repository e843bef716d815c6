"""From the bytes of a connection to deliveries, and back to their acknowledgements."""
