"""Answers to requests that fail authentication, limited by network.

An answer does not reveal whether a key, an account or a signature was wrong: only the holder of the
secret can find out, by `POST /webhooks/test/`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from falcon.asgi import Request

from services.ingress.webhook.rules import Refusal
from shared.db.session import is_database_unavailable
from shared.http.callers import client_address
from shared.http.errors import ApiError, too_many_requests, unavailable
from shared.security.networks import network_of
from shared.token_buckets import TokenBuckets

UNOPENED = ("unavailable", "The signature could not be checked. Try again later.")


class Refusals:
    """The refusals of one worker.

    Args:
        networks: the token buckets of refusals, by network.
    """

    def __init__(self, networks: TokenBuckets) -> None:
        self._networks = networks

    def refuse(self, req: Request, refusal: Refusal) -> ApiError:
        """Return the error to raise: the refusal, or 429 once its network had too many."""
        wait = self._networks.take(network_of(client_address(req)))
        return too_many_requests(wait) if wait else as_error(refusal)

    @contextmanager
    def looking_up(self, req: Request) -> Iterator[None]:
        """Limit look-ups in the database by network, since only those are expensive.

        A look-up holds one token of its network, so that concurrent requests make no more look-ups
        than the network may have refusals.

        Raises:
            ApiError: 429: the network had too many refusals; 503: the database is unreachable.
        """
        network = network_of(client_address(req))
        wait = self._networks.take(network)
        if wait:
            raise too_many_requests(wait)
        try:
            yield
        except Exception as error:
            if not is_database_unavailable(error):
                raise
            raise unavailable(
                "unavailable", "The signature could not be checked. Try again shortly."
            ) from None
        finally:
            self._networks.give_back(network)


def as_error(refusal: Refusal) -> ApiError:
    """Return the API error of a refusal."""
    error = ApiError(refusal.status, refusal.code, refusal.sentence)
    if refusal.faults:
        error.more["faults"] = list(refusal.faults)
    return error


def unopened() -> ApiError:
    """Return the error for a secret that no encryption key decrypts; `services.secrets` logs it."""
    return unavailable(*UNOPENED)
