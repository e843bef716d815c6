"""`python -m services.ingress`: gunicorn with the settings of the environment."""

import os
import sys
import tempfile
from pathlib import Path

from shared import lease
from shared.http import serving

METRICS = "order-fellow-metrics-"


def make_room_for_metrics() -> None:
    """Before prometheus_client is imported anywhere; a fresh folder, so that old numbers are gone.

    It is held until the last worker has ended; those of ingresses that were killed go now.
    """
    base = Path(tempfile.gettempdir())
    lease.remove_abandoned(base, METRICS)
    folder, lock = lease.make(base, METRICS)
    os.set_inheritable(lock, True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


if __name__ == "__main__":
    conf = Path(__file__).parent / "server" / "gunicorn.conf.py"
    sys.exit(serving.main("ingress", "services.ingress", conf, make_room_for_metrics))
