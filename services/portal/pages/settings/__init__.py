"""What a business sets: how its webhooks are taken, and how its emails are sent."""

from services.portal.pages.settings import emails, webhooks

PAGES = (*webhooks.PAGES, *emails.PAGES)
