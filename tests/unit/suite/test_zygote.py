"""What the tests fork is the process that it would be if it were started."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.config.settings import Settings
from stack import processes
from stack.folders import ROOT
from tests.integration.arrange import until
from tests.zygote import forks

PORTRAIT = (sys.executable, "-m", "tests.unit.suite.portrait")


@pytest.fixture
def run(tmp_path):
    started = []

    def start(*arguments, spawn=forks.spawn, directory=ROOT, **environment):
        log = tmp_path / f"log{len(started)}"
        process = spawn(
            (*PORTRAIT, *arguments),
            environment=os.environ | environment,
            log=log,
            directory=directory,
        )
        started.append(process)
        return process, log

    yield start
    for process in started:
        processes.stop(process, 0)


def parent(process):
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("\nPPid:")[2].split()[0])


def is_there(process):
    return Path(f"/proc/{process}").exists()


def says(log, what):
    return until(lambda: what in log.read_text() and log.read_text(), what)


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1", "TZ": "Africa/Lagos"}])
def test_it_sees_what_a_fresh_one_sees(run, variables):
    seen = {}
    for spawn in (processes.spawn, forks.spawn):
        process, log = run("portrait", "an argument", "", "ü", spawn=spawn, A="b", **variables)
        assert process.wait(60) == 0, log.read_text()
        printed, end = log.read_text().splitlines()
        assert end == "at its end"
        seen[spawn] = json.loads(printed.replace(str(log), "the log"))
    assert seen[forks.spawn] == seen[processes.spawn]


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_it_sees_what_its_streams_are(variables):
    command, environment = (*PORTRAIT, "streams"), os.environ | variables
    fresh = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT, check=True)
    reader, writer = os.pipe()
    with open(reader) as written:
        with open(writer, "w") as output, open(os.devnull) as nothing:
            process = forks._services.start(
                *PORTRAIT[2:],
                "streams",
                environment=environment,
                streams=(nothing.fileno(), output.fileno(), output.fileno()),
            )
        assert written.read() == fresh.stdout.decode()
    assert process.wait(60) == 0


def test_it_is_forked_and_not_started(run):
    process, log = run("sleep")
    says(log, "asleep")
    assert parent(process.pid) == forks._services.process.pid
    assert is_there(process.pid)
    assert process.poll() is None


@pytest.mark.parametrize("spawn", [processes.spawn, forks.spawn], ids=["fresh", "forked"])
@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (("exit", "0"), 0, "at its end\n"),
        (("exit", "3"), 3, "at its end\n"),
        (("raise",), 1, "RuntimeError: no such colour\nat its end\n"),
        (("thread",), 0, "the thread\nat its end\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_it_ends_as_a_fresh_one(run, spawn, arguments, code, printed):
    process, log = run(*arguments, spawn=spawn)
    assert process.wait(60) == code
    assert (process.poll(), process.returncode) == (code, code)
    assert log.read_text().endswith(printed)
    assert not is_there(process.pid)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_reach_it_and_show_in_its_exit_code(run, how):
    ended = []
    for spawn in (processes.spawn, forks.spawn):
        process, log = run("sleep", spawn=spawn)
        says(log, "asleep")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(how)
        ended.append(process.wait(60))
        process.send_signal(how)  # nobody any more
    assert ended == [-how, -how]


def test_a_signal_to_one_whose_end_is_not_reported_yet_is_lost(run, monkeypatch):
    """As to a child of one's own: on a busy machine the report comes a while after the end."""
    process, _ = run("exit", "0")
    until(lambda: not is_there(process.pid), "it has ended")
    with monkeypatch.context() as early:
        early.setattr(process, "poll", lambda: None)
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_no_two_draw_alike(run):
    drawn = []
    for _ in range(2):
        process, log = run("drawn")
        assert process.wait(60) == 0
        drawn.append(json.loads(log.read_text().splitlines()[0]))
    assert [one for one, other in zip(*drawn, strict=True) if one == other] == []


def test_many_at_once_are_told_apart(run):
    codes = list(range(16))
    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(lambda code: run("exit", str(code))[0].wait(60), codes))
    assert ended == codes


STARTS = {
    "LC_ALL": ("C.UTF-8", "C"),
    "LD_PRELOAD": ("libc.so.6", "libm.so.6"),
    "PYTHONHASHSEED": ("7", "8"),
}


@pytest.mark.parametrize("name", STARTS)
def test_an_interpreter_that_starts_otherwise_is_a_fresh_one(run, name):
    value = next(value for value in STARTS[name] if value != os.environ.get(name))
    process, log = run("sleep", **{name: value})
    says(log, "asleep")
    assert parent(process.pid) == os.getpid()


LOOK = """
import json, os, random, sys, threading
noted = []
class Watched(type(os.environ)):
    def __getitem__(self, name):
        noted.append(name)
        return super().__getitem__(name)
os.environ.__class__ = Watched
import tests.zygote.__main__
from tests.zygote.forks import LIBRARIES, OURS
looked = []
def look(names):
    for name in names:
        __import__(name)
    looked.append([noted[:], list(sys.modules), len(os.listdir("/proc/self/task"))])
look(LIBRARIES)
noted.clear()
drawn = os.urandom
def drawing(count):
    noted.append("os.urandom")
    return drawn(count)
os.urandom = random._urandom = drawing
files = os.listdir("/proc/self/fd")
look(OURS)
assert os.listdir("/proc/self/fd") == files
print(json.dumps(looked))
"""
# Each is what it is by the environment, or by what the fork does before it imports anything.
OF_A_PROCESS = {"prometheus_client", "gunicorn.config", "shared.security.passwords"}


@pytest.fixture(scope="module")
def beforehand():
    """What reads, draws or starts what, of the libraries and then of ours."""
    done = subprocess.run(
        (sys.executable, "-c", LOOK), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_libraries_that_are_imported_beforehand_read_no_setting(beforehand):
    read, modules, threads = beforehand[0]
    settings = {name.upper() for name in Settings.__struct_fields__}
    assert settings.intersection(read) == set()
    assert {name.partition(".")[0] for name in modules} & {"services", "shared"} == set()
    assert OF_A_PROCESS.intersection(modules) == set()
    assert threads == 1


def test_modules_of_ours_that_are_imported_beforehand_are_of_no_process(beforehand):
    noted, modules, threads = beforehand[1]
    assert noted == []
    assert OF_A_PROCESS.intersection(modules) == set()
    assert not any(name.endswith(".__main__") for name in modules if name.startswith("services"))
    assert threads == 1


ASKER = """
import os, sys, time
from tests.zygote.forks import Zygote
zygote = Zygote(())
with open(os.devnull) as nothing, open(sys.argv[1], "w") as output:
    streams = (nothing.fileno(), output.fileno(), output.fileno())
    asked = ("tests.unit.suite.portrait", "sleep")
    fork = zygote.start(*asked, environment=os.environ, streams=streams)
print(fork.pid, zygote.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_who_asked_for_it(tmp_path, how):
    log = tmp_path / "log"
    with subprocess.Popen(
        (sys.executable, "-c", ASKER, log),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as asker:
        fork, zygote = map(int, asker.stdout.readline().split())
        says(log, "asleep")
        assert is_there(fork)
        assert is_there(zygote)
        asker.send_signal(how)
        until(lambda: not is_there(fork), "the fork has ended")
        until(lambda: not is_there(zygote), "the zygote has ended")


def test_one_that_ends_leaves_the_others_alone(tmp_path):
    logs = (tmp_path / "one", tmp_path / "other")
    zygotes = (forks.Zygote(()), forks.Zygote(()))
    started = []
    for zygote, log in zip(zygotes, logs, strict=True):
        with open(os.devnull) as nothing, log.open("w") as output:
            streams = (nothing.fileno(), output.fileno(), output.fileno())
            asked = ("tests.unit.suite.portrait", "sleep")
            started.append(zygote.start(*asked, environment=os.environ, streams=streams))
        says(log, "asleep")
    zygotes[0].close()
    until(lambda: not is_there(started[0].pid), "its fork has ended")
    with pytest.raises(EOFError):
        started[0].wait(60)
    assert started[1].poll() is None
    started[1].terminate()
    assert started[1].wait(60) == -signal.SIGTERM
    zygotes[1].close()
