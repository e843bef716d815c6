"""The request log's index, which holds accepted and refused requests of an account apart."""


def outcomes(is_accepted: bool | None, code: str | None) -> list[bool]:
    """In which halves of the index requests may be that are looked for.

    Without this a search for one error would walk all that was accepted. `accepted` is the code of
    every request that was, and of no other.

    Args:
        is_accepted: those alone, or the refused ones alone; None for both.
        code: one code; None or empty for any.
    """
    halves = [True, False] if is_accepted is None else [is_accepted]
    return [half for half in halves if not code or half == (code == "accepted")]
