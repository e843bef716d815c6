"""How a message leaves: published with confirms, many outstanding at once."""
