"""Webhook secrets: issued on approval, rotated before they expire, revoked immediately."""

SOURCE = "services.secrets"
