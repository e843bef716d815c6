"""What the tests take from where they are run."""

import os
import subprocess
import sys

from stack.folders import ROOT

SCRIPT = """
import os
from tests import conftest
conftest.pytest_configure()
import httpx
print(len(httpx.Client()._mounts))
"""


def test_no_proxy_stands_between_the_tests_and_what_they_start():
    proxies = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=os.environ | proxies | {"no_proxy": "elsewhere.example"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"
