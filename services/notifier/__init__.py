"""The notifier: one email a fact and recipient, by SMTP."""

SOURCE = "services.notifier"
