"""Sender name, reply-to address, language and time zone of a business's emails."""
