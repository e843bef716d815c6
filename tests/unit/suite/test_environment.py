"""What the tests take from where they are run."""

import os
import subprocess
import sys

import pytest

from stack.folders import ROOT
from tests import conftest

SCRIPT = """
import os
from tests import conftest
conftest.pytest_configure()
import httpx
print(len(httpx.Client()._mounts))
"""


COLOURS = """
from tests import conftest
conftest.pytest_configure()
import sys
from rich.console import Console
from typer import rich_utils
print(Console().is_terminal, rich_utils.FORCE_TERMINAL, Console(force_terminal=True).no_color)
"""


@pytest.mark.parametrize(
    "name",
    ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS", "PY_COLORS", "NO_COLOR"],
)
def test_what_the_tests_start_prints_as_into_a_pipe_in_one_way(name):
    others = {key: value for key, value in os.environ.items() if key not in conftest.COLOURS}
    done = subprocess.run(
        [sys.executable, "-c", COLOURS],
        cwd=ROOT, env=others | {name: "1", "TERM": "xterm"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "None", "False"]


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
