"""How the system does: figures sampled, kept for an hour, and said in alerts."""
