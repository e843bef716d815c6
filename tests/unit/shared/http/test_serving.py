"""The configuration of our gunicorn processes."""

import os
import subprocess
import sys

from stack.folders import ROOT

BEGINS = """
import sys
from pathlib import Path
from gunicorn.app import wsgiapp
from shared.http import serving

def run():
    config = wsgiapp.WSGIApplication().cfg
    print(config.bind, config.workers)

wsgiapp.run = run
serving.main("ingress", "services.ingress", Path(sys.argv[1]))
"""


TIMEOUT = """
import runpy
from gunicorn.app import wsgiapp

wsgiapp.run = lambda: print(wsgiapp.WSGIApplication().cfg.timeout)
runpy.run_module("tests.integration.ingress", run_name="__main__", alter_sys=True)
"""


def test_gunicorn_cmd_args_are_ignored(tmp_path):
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text('bind = "127.0.0.1:8000"\nworkers = 2\nwsgi_app = "ours"\n')
    theirs = {"GUNICORN_CMD_ARGS": "--bind 0.0.0.0:9999 --workers 7"}
    done = subprocess.run(
        [sys.executable, "-c", BEGINS, str(conf)],
        cwd=ROOT, env=os.environ | theirs, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "['127.0.0.1:8000'] 2\n"


def test_a_worker_stopped_by_a_test_is_not_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TIMEOUT],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "900\n"
