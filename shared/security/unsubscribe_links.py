"""Where customers leave: the address in each email about an order, and on the order's own page.

That of an email is for whoever got it: all of a business's emails, and back. The page's link is
passed on, so what it leads to ends the emails of that order alone, begins none again, and is worth
nothing once the business has ended that link.
"""

from uuid import UUID

from shared.security import tracking
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


def order_unsubscribe_url(public_url: str, order_id: UUID, number: int) -> str:
    """The address of the page for whoever has the link to an order.

    Args:
        public_url: where the API is for the outside.
        order_id: which order.
        number: which of its links.
    """
    token = tracking.token_for(order_id, number)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?link={token}"
