"""The one public HTTP app: the webhook's hot path, and every service's routes."""
