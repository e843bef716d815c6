"""Snapshots of the system, the figures of the last hour, and the troubles found in them."""
