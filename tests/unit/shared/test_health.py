"""The health file, and its two readers, whose results agree."""

import os
import subprocess
import sys
import time

import pytest

from shared import health
from shared.bus.broker.standing import Standing
from stack.folders import ROOT

CHECKS = ([str(ROOT / "deploy" / "alive")], [sys.executable, "-S", "-m", "shared.health"])


def result(path):
    """Return the exit code and the output of both checks, which must agree."""
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


def test_a_healthy_file_is_valid(tmp_path):
    health.beat(str(tmp_path / "alive"), [standing("one"), standing("other")])
    assert result(tmp_path / "alive") == (0, [])
    health.beat(str(tmp_path / "alive"), [])
    assert result(tmp_path / "alive") == (0, [])


def test_each_problem_is_a_line(tmp_path):
    error = ConnectionRefusedError("it is\nnot $HOME `there` \\n 'é'")
    parts = [standing("one", error), standing("two"), standing("three", error)]
    health.beat(str(tmp_path / "alive"), parts)
    sentence = "is away. it is not $HOME `there` \\n 'é'"
    assert result(tmp_path / "alive") == (1, [f"one {sentence}", f"three {sentence}"])


def test_an_expired_file_is_unhealthy(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(health.time, "time", lambda: now - health.FRESH_SECONDS - 1)
    health.beat(str(tmp_path / "alive"), [standing("one")])
    assert result(tmp_path / "alive") == (1, ["The process no longer responds."])


@pytest.mark.parametrize("text", ["", "\n", "[]", "-1\n", "1e9\n", "nothing 99999999999\n"])
def test_an_invalid_file_is_unhealthy(tmp_path, text):
    (tmp_path / "alive").write_text(text)
    code, (sentence,) = result(tmp_path / "alive")
    assert code == 1
    assert sentence


def test_no_file(tmp_path):
    nowhere = tmp_path / "alive"
    assert result(nowhere) == (1, [f"Nothing has been written to {nowhere}."])
    assert result("") == (1, ["Nothing has been written to HEALTH_FILE, which is not set."])


def test_an_unwritable_file_is_logged(tmp_path, caplog):
    """A full disk must not end the process."""
    health.beat(str(tmp_path / "none" / "health"), [standing("orders.intake")])
    assert "HEALTH_FILE cannot be written" in caplog.text
    (tmp_path / "none").mkdir()
    health.beat(str(tmp_path / "none" / "health"), [standing("orders.intake")])
    assert result(tmp_path / "none" / "health") == (0, [])
