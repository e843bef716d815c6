"""A run of which a part was dropped is no success."""

import os
import subprocess
import sys

import pytest

from stack.folders import ROOT

BY_XDIST = ["--numprocesses", "2", "--dist", "loadfile"]
FINE = "def test_a(): pass\ndef test_b(): pass\n"
EQUAL_IDS = """
import pytest

class Same(pytest.Item):
    def runtest(self): pass

class Files(pytest.File):
    def collect(self):
        return [Same.from_parent(self, name="same") for _ in range(2)]

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".same":
        return Files.from_parent(parent, path=file_path)
"""
DROPS_ONE = """
def pytest_runtest_protocol(item):
    return True if item.name == "test_b" else None
"""


def run(folder, *arguments):
    """A pytest of its own, with the plugin. Answers its exit status and what it said."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    # Without all that is installed: to import it takes ten times as long as the rest.
    own = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.all_ran"),
            *("-p", "no:cacheprovider", f"--rootdir={folder}", *arguments, str(folder)),
        ],
        cwd=folder,
        env=inherited | own,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
def test_all_ran(tmp_path, how):
    (tmp_path / "test_it.py").write_text(FINE)
    status, said = run(tmp_path, *how)
    assert status == 0, said
    assert "2 of 2 collected tests ran" in said
    assert said.rstrip().splitlines()[-1].strip("= ").startswith("2 passed in ")


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
def test_skipped_failed_and_broken_ones_ran_too(tmp_path, how):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken():\n    yield\n    raise OSError\n"
        "@pytest.mark.skip\ndef test_a(): pass\n"
        "def test_b(): assert False\n"
        "def test_c(broken): pass\n"
    )
    status, said = run(tmp_path, *how)
    assert status == 1, said
    assert "3 of 3 collected tests ran" in said


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
def test_equal_ids_fail(tmp_path, how):
    (tmp_path / "conftest.py").write_text(EQUAL_IDS)
    (tmp_path / "it.same").touch()
    status, said = run(tmp_path, *how)
    assert status == 1, said
    assert "2 tests have the id it.same::same" in said


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
def test_one_that_was_dropped_fails(tmp_path, how):
    (tmp_path / "conftest.py").write_text(DROPS_ONE)
    (tmp_path / "test_it.py").write_text(FINE)
    status, said = run(tmp_path, *how)
    assert status == 1, said
    assert "1 of 2 collected tests ran" in said


def test_a_crashed_worker_fails(tmp_path):
    (tmp_path / "test_it.py").write_text("import os\ndef test_a(): os._exit(3)\n" + FINE[18:])
    status, said = run(tmp_path, *BY_XDIST, "--max-worker-restart=0")
    assert status != 0, said
    assert "1 of 2 collected tests ran" in said
