"""Answers to requests that are not rightly signed, counted by network.

They say no more than that: whether a key, an account or a signature was wrong is for the holder of
the secret to know.
"""

from falcon.asgi import Request

from services.ingress.webhook.rules import Refusal
from shared.db.session import is_database_away
from shared.http.errors import ApiError, too_many_requests, unavailable
from shared.http.mount import client_address
from shared.security.networks import network_of
from shared.token_buckets import TokenBuckets


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

    def hold_up(self, req: Request) -> None:
        """Let a guesser wait before the database is asked: only that costs something.

        Raises:
            ApiError: 429, for an address that has been refused too often.
        """
        wait = self._networks.is_empty(network_of(client_address(req)))
        if wait:
            raise too_many_requests(wait)


def as_error(refusal: Refusal) -> ApiError:
    """The answer to a request that the rules refuse."""
    error = ApiError(refusal.status, refusal.code, refusal.sentence)
    if refusal.faults:
        error.more["faults"] = list(refusal.faults)
    return error


def unopened() -> ApiError:
    """The secret cannot be opened: not the sender's fault; `services.secrets` logs which key."""
    return unavailable("unavailable", "The signature could not be checked. Try again later.")


def unchecked(error: Exception) -> ApiError:
    """What to answer when a sender could not be looked up.

    Raises:
        Exception: `error`, when it is not that the database is away.
    """
    if not is_database_away(error):
        raise error
    return unavailable("unavailable", "The signature could not be checked. Try again shortly.")
