"""Keep what lives as long as the process out of the garbage collector's sight."""

import gc

# Objects made before the collector looks at the young ones. At Python's own 700 it looks some
# hundred times a second at requests that are on their way, and finds nothing.
YOUNG = 20_000


def freeze() -> None:
    """Take all that lives now out of the collector's sight (`gc.freeze`).

    A full collection looks at every object: with what our imports leave that stops a worker for
    60 ms, every other second under load. Call it when the process has started, and after something
    large was loaded that stays.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
