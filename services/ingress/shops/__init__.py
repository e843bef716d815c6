"""The endpoints of shop platforms: authentication, and reading of deliveries."""
