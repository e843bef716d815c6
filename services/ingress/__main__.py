"""`python -m services.ingress`: gunicorn with the settings of the environment."""

import os
import sys
import tempfile
from pathlib import Path

from shared import lease
from shared.http import serving

METRICS = "order-fellow-metrics-"


def make_room_for_metrics() -> None:
    """Make an empty folder for the metrics of all workers, before prometheus_client is imported.

    It is locked until the last worker has ended; the folders of killed ingresses are removed.
    """
    base = Path(tempfile.gettempdir())
    lease.remove_abandoned(base, METRICS)
    folder, lock = lease.make(base, METRICS)
    os.set_inheritable(lock, True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


if __name__ == "__main__":
    conf = Path(__file__).parent / "server" / "gunicorn.conf.py"
    sys.exit(serving.main("ingress", "services.ingress", conf, make_room_for_metrics))
