"""The relay: what waits in the outbox is published with confirms, then deleted."""
