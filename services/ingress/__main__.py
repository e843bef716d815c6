"""`python -m services.ingress`: gunicorn with the settings of the environment."""

import os
import sys
import tempfile
from pathlib import Path

from shared import lease
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.http import serving

METRICS = "order-fellow-metrics-"


def main() -> int:
    """Check the configuration and become gunicorn.

    Returns:
        The exit code, only when the configuration is bad.
    """
    try:
        begin("ingress")
    except ConfigurationError as error:
        print(f"services.ingress cannot start. {error}", file=sys.stderr)  # noqa: T201
        return 2
    # Before prometheus_client is imported anywhere; a fresh folder, so that old numbers are gone.
    # It is held until the last worker has ended; those of ingresses that were killed go now.
    base = Path(tempfile.gettempdir())
    lease.remove_abandoned(base, METRICS)
    folder, lock = lease.make(base, METRICS)
    os.set_inheritable(lock, True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    serving.serve(Path(__file__).parent / "server" / "gunicorn.conf.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
