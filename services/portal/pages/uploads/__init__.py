"""A file of orders: what of it would be taken, then sent as a program of the business sends it."""

from services.portal.pages.uploads.pages import PAGES

__all__ = ["PAGES"]
