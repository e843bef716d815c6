"""The file that a process writes, and the two checks that read it: they say the same."""

import os
import subprocess
import sys
import time

import pytest

from shared import health
from shared.bus.broker.standing import Standing
from stack.folders import ROOT

CHECKS = ([str(ROOT / "deploy" / "alive")], [sys.executable, "-S", "-m", "shared.health"])


def said(path):
    """What both checks say, when they agree: the exit code, and the sentences."""
    results = []
    for command in CHECKS:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HEALTH_FILE": str(path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        results.append((done.returncode, done.stdout.splitlines()))
    assert results[0] == results[1]
    return results[0]


def standing(name, error=None):
    made = Standing(name)
    made.working()
    if error is not None:
        made.failed(error)
    return made


def test_all_is_well(tmp_path):
    health.beat(str(tmp_path / "alive"), [standing("one"), standing("other")])
    assert said(tmp_path / "alive") == (0, [])
    health.beat(str(tmp_path / "alive"), [])
    assert said(tmp_path / "alive") == (0, [])


def test_each_thing_that_is_wrong_is_a_line(tmp_path):
    error = ConnectionRefusedError("it is\nnot $HOME `there` \\n 'é'")
    parts = [standing("one", error), standing("two"), standing("three", error)]
    health.beat(str(tmp_path / "alive"), parts)
    sentence = "is away. it is not $HOME `there` \\n 'é'"
    assert said(tmp_path / "alive") == (1, [f"one {sentence}", f"three {sentence}"])


def test_a_process_that_stands_still(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(health.time, "time", lambda: now - health.FRESH_SECONDS - 1)
    health.beat(str(tmp_path / "alive"), [standing("one")])
    assert said(tmp_path / "alive") == (1, ["The process does not turn any more."])


@pytest.mark.parametrize("text", ["", "\n", "[]", "-1\n", "1e9\n", "nothing 99999999999\n"])
def test_what_is_no_such_file(tmp_path, text):
    (tmp_path / "alive").write_text(text)
    code, (sentence,) = said(tmp_path / "alive")
    assert code == 1
    assert sentence


def test_no_file(tmp_path):
    nowhere = tmp_path / "alive"
    assert said(nowhere) == (1, [f"Nothing has been written to {nowhere}."])
    assert said("") == (1, ["Nothing has been written to HEALTH_FILE, which is not set."])


def test_a_file_that_cannot_be_written_ends_nobody(tmp_path, caplog):
    """A disk is full, for a moment; what does the work must not end by it."""
    health.beat(str(tmp_path / "none" / "health"), [standing("orders.intake")])
    assert "HEALTH_FILE cannot be written" in caplog.text
    (tmp_path / "none").mkdir()
    health.beat(str(tmp_path / "none" / "health"), [standing("orders.intake")])
    assert said(tmp_path / "none" / "health") == (0, [])
