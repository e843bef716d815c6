"""Accounts of businesses: registration, proof of the email address, sign-in."""

SOURCE = "services.accounts"
