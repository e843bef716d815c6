"""Upload of a file of orders: a preview, then each row is sent to the webhook."""

from services.portal.pages.uploads.pages import PAGES

__all__ = ["PAGES"]
