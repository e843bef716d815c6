"""What the tests need, said in a sentence where it is not there."""

import os
import re
import subprocess
import sys

import pytest

from stack.folders import ROOT
from tests import programs


def run(module, **environment):
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_all_that_is_missing_is_one_sentence(tmp_path):
    code, said, complaint = run("tests.programs", PATH=str(tmp_path))
    assert (code, said) == (1, "")
    assert complaint.count("\n") == 1
    for name, packages in programs.PACKAGES.items():
        assert re.search(rf"\b{name}\b", complaint)
        assert set(packages) <= set(complaint.split())


def test_what_a_test_runs_is_in_the_list():
    asked = {
        name
        for file in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"\bprogram\(\"([^\"]+)\"\)", file.read_text())
    }
    assert asked == set(programs.PACKAGES)


@pytest.mark.parametrize("module", ["tests.machines.compose", "tests.machines.matrix"])
def test_without_an_engine_it_is_a_sentence(module, tmp_path):
    code, said, complaint = run(module, DOCKER_HOST=f"unix://{tmp_path}/nowhere")
    assert (code, said) in ((1, ""), (2, ""))
    assert complaint.startswith("No Docker engine answers")
    assert complaint.count("\n") == 1
