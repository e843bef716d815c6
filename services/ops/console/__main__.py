"""`python -m services.ops.console`: gunicorn with the settings of the environment."""

import sys
from pathlib import Path

from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.http import serving


def main() -> int:
    """Check the configuration and become gunicorn.

    Returns:
        The exit code, only when the configuration is bad.
    """
    try:
        begin("ops")
    except ConfigurationError as error:
        print(f"services.ops.console cannot start. {error}", file=sys.stderr)
        return 2
    serving.serve(Path(__file__).with_name("gunicorn.conf.py"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
