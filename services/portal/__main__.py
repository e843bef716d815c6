"""`python -m services.portal`: gunicorn with the settings of the environment."""

import os
import sys
from pathlib import Path

from shared.config.environment import ConfigurationError
from shared.config.loading import begin


def main() -> int:  # noqa: RET503 - execv never returns
    """Check the configuration and become gunicorn.

    Returns:
        The exit code, only when the configuration is bad.
    """
    try:
        begin("portal")
    except ConfigurationError as error:
        print(f"services.portal cannot start. {error}", file=sys.stderr)  # noqa: T201 - no log yet
        return 2
    conf = Path(__file__).with_name("gunicorn.conf.py")
    arguments = [sys.executable, "-m", "gunicorn", "--config", str(conf)]
    os.execv(sys.executable, arguments)  # noqa: S606 - our own interpreter, no shell


if __name__ == "__main__":
    sys.exit(main())
