"""A run of which a part was dropped is no success."""

import os
import subprocess
import sys
import tomllib

import pytest

from stack.folders import ROOT
from tests.machines import matrix, table

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


def run(folder, *arguments, **environment):
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
        env=inherited | own | environment,
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
    assert "2 of 3 collected tests ran" in said


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
@pytest.mark.parametrize("where", ["test", "module"])
def test_one_that_was_skipped_fails(tmp_path, where, how):
    skips = {
        "test": "import pytest\n@pytest.mark.skip\ndef test_c(): pass\n",
        "module": "import pytest\npytest.skip('no', allow_module_level=True)\n",
    }
    (tmp_path / "test_it.py").write_text(FINE)
    (tmp_path / "test_other.py").write_text(skips[where])
    status, said = run(tmp_path, *how)
    assert status == 1, said
    assert "Skipped, and tests/all_ran.py does not say so: test_other.py" in said


def test_one_that_is_declared_may_be_skipped(tmp_path):
    folder = tmp_path / "tests" / "faults" / "servers"
    folder.mkdir(parents=True)
    (folder / "test_disk.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no disk')\n"
    )
    status, said = run(tmp_path)
    assert status == 0, said


@pytest.mark.parametrize("how", [[], BY_XDIST], ids=["alone", "xdist"])
@pytest.mark.parametrize("option", ["--deselect=test_it.py::test_b", "-k test_a"])
def test_what_the_environment_deselects_fails(tmp_path, option, how):
    (tmp_path / "test_it.py").write_text(FINE)
    status, said = run(tmp_path, *how, PYTEST_ADDOPTS=option)
    assert status == 1, said
    assert "Left out, and nobody has typed it: test_it.py::test_b" in said
    status, said = run(tmp_path, *how, *option.split())
    assert status == 0, said


def test_what_the_environment_ignores_fails(tmp_path):
    for name in ("test_it.py", "test_other.py"):
        (tmp_path / name).write_text(FINE)
    status, said = run(tmp_path, PYTEST_ADDOPTS="--ignore=test_other.py")
    assert status == 1, said
    assert "test_other.py" in said


def test_no_parameters_are_a_failure(tmp_path):
    """Who parametrizes by what is imported, and renames it, has a test that never runs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["empty_parameter_set_mark"] == "fail_at_collect"
    assert settings["xfail_strict"] is True


def test_asserts_are_there(tmp_path):
    done = subprocess.run(
        (sys.executable, "-O", "-m", "tests.machines.compose"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Tests are asserts" in done.stderr


def test_examples_are_new_ones_in_ci():
    script = "import tests.conftest, hypothesis; print(hypothesis.settings.default.derandomize)"
    done = subprocess.run(
        (sys.executable, "-c", script),
        cwd=ROOT, env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("held", "code"),
    [([True, True], 0), ([True, None], 0), ([True, False], 1), ([None, False], 1), ([None], 3)],
)
def test_a_matrix_of_which_nothing_was_tried_is_no_success(held, code):
    assert matrix._code(held) == code


def row(*cells):
    return ("debian-13", "bare", "3.13.5", *cells)


def test_what_the_table_keeps_of_another_commit_says_of_which(tmp_path):
    page = tmp_path / "versions.md"
    page.write_text(table.BEGIN)
    never = table.NOT_TRIED
    table.renew(page, [row("holds, 9 s", "ran 246: 1 failed, 600 s", never, "2026-11-27, 62335a0")])
    for tried in ("2026-11-30, 519a4cb6", "2026-11-30, 8cfda675"):
        table.renew(page, [row("holds, 8 s", never, never, tried)])
    kept = "ran 246: 1 failed, 600 s (2026-11-27, 62335a0)"
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("| debian-13"))
    assert table._columns(line) == row("holds, 8 s", kept, never, "2026-11-30, 8cfda675")
    table.renew(page, [row(never, "ran 246, 600 s", never, "2026-12-01, 0a0a0a0a")])
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("| debian-13"))
    kept = "holds, 8 s (2026-11-30, 8cfda675)"
    assert table._columns(line) == row(kept, "ran 246, 600 s", never, "2026-12-01, 0a0a0a0a")


VARIABLES = {
    "PYTHONSAFEPATH": "1",
    "PYTHONOPTIMIZE": "1",
    "PYTHONINSPECT": "1",
    "PYTHONIOENCODING": "ascii",
    "PYTHONPATH": "/nowhere",
    "PYTEST_ADDOPTS": "--collect-only",
    "PYTEST_PLUGINS": "no_such_plugin",
    "PYTEST_TIMEOUT": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def test_make_hands_nothing_on_that_changes_what_python_or_pytest_does(tmp_path):
    (tmp_path / "show.mk").write_text("show:\n\t@env\n")
    done = subprocess.run(
        ("make", "--no-print-directory", "-f", "Makefile", "-f", str(tmp_path / "show.mk"), "show"),
        cwd=ROOT, env=os.environ | VARIABLES | {"PYTHON": "python3"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names & set(VARIABLES) == set()
    assert "PYTHON" in names


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
