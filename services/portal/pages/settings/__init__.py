"""Settings of a business: its webhooks and its emails."""

from services.portal.pages.settings import emails, refused, sender, shops, webhooks

PAGES = (*webhooks.PAGES, *shops.PAGES, *emails.PAGES, *sender.PAGES, *refused.PAGES)
