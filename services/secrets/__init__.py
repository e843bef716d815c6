"""Webhook secrets: issued on approval, rotated before they expire, revoked at once."""

SOURCE = "services.secrets"
