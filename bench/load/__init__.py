"""What sends requests: as fast as it can (wrk), or at a steady rate whatever the answers do."""
