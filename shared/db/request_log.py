"""Rules of the request log: how its index is searched, and how many refusals it keeps."""

ACCOUNT_REFUSALS = 100
"""Refusals of an account that a worker logs in a burst; beyond them it logs one per second."""


def outcomes(is_accepted: bool | None, code: str | None) -> list[bool]:
    """Return the values of `accepted` that a search must cover.

    Without it a search for one error code would scan all accepted requests. An accepted request has
    the code `accepted`, and no other has.

    Args:
        is_accepted: searches only accepted or only refused requests; None for both.
        code: searches one code; None or empty for any.
    """
    halves = [True, False] if is_accepted is None else [is_accepted]
    return [half for half in halves if not code or half == (code == "accepted")]
