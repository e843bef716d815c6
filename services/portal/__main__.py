"""`python -m services.portal`: runs gunicorn with the settings of the environment."""

import sys
from pathlib import Path

from shared.http import serving

if __name__ == "__main__":
    conf = Path(__file__).with_name("gunicorn.conf.py")
    sys.exit(serving.main("portal", "services.portal", conf))
