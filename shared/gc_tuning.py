"""Tunes the garbage collector: freezes long-lived objects and raises the gen-0 threshold."""

import gc

# The gen-0 threshold. With Python's default of 700, gen 0 is collected some hundred times a second
# under load, and finds nothing but live requests.
YOUNG = 20_000


def freeze() -> None:
    """Exclude all existing objects from collections (`gc.freeze`).

    Otherwise a full collection of the imported modules stops a worker for 60 ms, every other second
    under load. Call it after the start, and after loading large permanent data.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
