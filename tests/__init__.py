import os
import sys

from tests import cheap_hashes

if not __debug__:
    sys.exit("Tests are asserts, which `python -O` (PYTHONOPTIMIZE) leaves out.")
cheap_hashes.install(os.environ)
