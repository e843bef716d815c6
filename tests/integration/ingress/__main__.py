"""`python -m tests.integration.ingress`: the ingress, whose workers a test may stop for a while.

As `by_each_worker` does. With the time that it has otherwise they would be taken for some that
hang, and killed.
"""

import runpy

from shared.http import serving

if __name__ == "__main__":
    serving.timeout = 900
    runpy.run_module("services.ingress", run_name="__main__", alter_sys=True)
