"""Answers to requests that are not rightly signed, counted by network.

They say no more than that: whether a key, an account or a signature was wrong is for the holder of
the secret to know.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from falcon.asgi import Request

from services.ingress.webhook.rules import Refusal
from shared.db.session import is_database_away
from shared.http.callers import client_address
from shared.http.errors import ApiError, too_many_requests, unavailable
from shared.security.networks import network_of
from shared.token_buckets import TokenBuckets

UNOPENED = ("unavailable", "The signature could not be checked. Try again later.")


class Refusals:
    """The refusals of one worker.

    Args:
        networks: how often a network may be refused.
    """

    def __init__(self, networks: TokenBuckets) -> None:
        self._networks = networks

    def refuse(self, req: Request, refusal: Refusal) -> ApiError:
        """The error to raise, or a 429 for an address that has had too many of them."""
        wait = self._networks.take(network_of(client_address(req)))
        return too_many_requests(wait) if wait else as_error(refusal)

    @contextmanager
    def looking_up(self, req: Request) -> Iterator[None]:
        """Let a guesser wait before the database is asked: only that costs something.

        While it is asked, one refusal of the address is spoken for: of requests that come at once
        no more ask than may be refused.

        Raises:
            ApiError: 429, for an address that has been refused too often; 503, when a sender could
                not be looked up.
        """
        network = network_of(client_address(req))
        wait = self._networks.take(network)
        if wait:
            raise too_many_requests(wait)
        try:
            yield
        except Exception as error:
            if not is_database_away(error):
                raise
            raise unavailable(
                "unavailable", "The signature could not be checked. Try again shortly."
            ) from None
        finally:
            self._networks.give_back(network)


def as_error(refusal: Refusal) -> ApiError:
    """The answer to a request that the rules refuse."""
    error = ApiError(refusal.status, refusal.code, refusal.sentence)
    if refusal.faults:
        error.more["faults"] = list(refusal.faults)
    return error


def unopened() -> ApiError:
    """The secret cannot be opened: not the sender's fault; `services.secrets` logs which key."""
    return unavailable(*UNOPENED)
