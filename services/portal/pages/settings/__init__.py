"""What a business sets: how its webhooks are taken, and how its emails are sent."""

from services.portal.pages.settings import emails, refused, sender, shops, webhooks

PAGES = (*webhooks.PAGES, *shops.PAGES, *emails.PAGES, *sender.PAGES, *refused.PAGES)
