"""Where a customer leaves: the address in each email about an order."""

from uuid import UUID

from shared.security.unsubscribe_tokens import unsubscribe_tokens

PATH = "/unsubscribe/"
"""Below the API's prefix. The token is in the query, since paths are what logs have."""


def unsubscribe_url(public_url: str, account_id: UUID, order_id: UUID, address: str) -> str:
    """The address of the page for whoever gets the emails about an order.

    Args:
        public_url: where the API is for the outside.
        account_id: whose order it is.
        order_id: which.
        address: the customer's.
    """
    token = unsubscribe_tokens().make(account_id, order_id, address)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?token={token}"
