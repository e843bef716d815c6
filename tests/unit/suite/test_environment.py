"""What the tests, and what they test, take from where they are run."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from stack.folders import ROOT
from tests import environment

LOADED = """
import json, os
from tests import conftest
print(json.dumps(dict(os.environ)))
"""
FOREIGN = {
    # Servers, names and settings of somebody else's.
    "AMQP_URL": "amqp://elsewhere.example", "HOST": "elsewhere.example", "LOG_LEVEL": "debug",
    "PGSSLMODE": "require", "SMTP_PASSWORD_FILE": "/nowhere",
    # A person of ours, or a business, as our own pages say to export them.
    "API_URL": "http://elsewhere.example", "FELLOW_AS": "ada", "FELLOW_PASSWORD": "secret",
    "WEBHOOK_KEY": "/nowhere", "WEBHOOK_SECRET": "whsk_of_somebody",
    # Of libraries of ours, for another program.
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:9999", "OTEL_SDK_DISABLED": "true",
    "OTEL_TRACES_SAMPLER": "always_off", "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "prometheus_multiproc_dir": "/nowhere",
    "PYTHONUNBUFFERED": "1",
    # Of programs that tests start.
    "COMPOSE_FILE": "/nowhere", "EDITOR": "ed", "GOFLAGS": "-mod=vendor", "MAKEFLAGS": "-j4",
    "JAVA_TOOL_OPTIONS": "-Xmx1m", "MFLAGS": "-j4", "NODE_OPTIONS": "--no", "PWDEBUG": "1",
    # How what is printed looks.
    "COLUMNS": "40", "FORCE_COLOR": "1", "GITHUB_ACTIONS": "1", "LINES": "10", "NO_COLOR": "1",
    "PY_COLORS": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1",
    # Ways that do not lead to servers of ours.
    "ALL_PROXY": "socks5://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1", "no_proxy": "elsewhere.example",
}  # fmt: skip
NEEDED = {
    "CI": "true", "DOCKER_HOST": "unix:///run/docker.sock", "FAULTS_MINUTES": "60",
    "GOPROXY": "off", "LC_ALL": "C.UTF-8", "MAKELEVEL": "1", "PIP_INDEX_URL": "https://a.example",
    "REQUESTS_CA_BUNDLE": "/ours", "SSL_CERT_FILE": "/ours", "TMPDIR": "/var/tmp",
    "XDG_STATE_HOME": "/var/tmp",
}  # fmt: skip


def test_what_a_shell_has_for_others_reaches_no_test():
    """And is gone before what the tests import can read it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=ROOT, env=os.environ | FOREIGN | NEEDED, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seen = json.loads(done.stdout)
    assert seen.keys() & FOREIGN.keys() == set()
    assert {name: seen.get(name) for name in NEEDED} == NEEDED
    assert seen["PATH"] == os.environ["PATH"]


READ = re.compile(r"""os\.environ\.get\(["'](\w+)""")


def test_whatever_a_test_reads_of_a_shell_is_kept():
    read = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in READ.findall(path.read_text(encoding="utf-8"))
    }
    assert "FAULTS_SEED" in read
    assert environment.kept(dict.fromkeys(read, "")).keys() == read


def by_the_locale(source):
    """The lines that read or write a text in whatever encoding a shell's locale has."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        mode = call.args[isinstance(call.func, ast.Name) :][:1]
        is_text = name in ("read_text", "write_text") or (
            name == "open" and all(isinstance(m, ast.Constant) and "b" not in m.value for m in mode)
        )
        if is_text and "encoding" not in {keyword.arg for keyword in call.keywords}:
            found.append(call.lineno)
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("FILE.read_text()", [1]),
        ("FILE.write_text(text)", [1]),
        ("FILE.read_text(encoding='utf-8')", []),
        ("open(path)", [1]),
        ("open(path, 'rb')", []),
        ("FILE.open('w')", [1]),
        ("FILE.open()", [1]),
        ("FILE.open('ab')", []),
        ("sealer().open(sealed, bound_to)", []),
    ],
)
def test_what_goes_by_the_locale_is_found(source, lines):
    assert by_the_locale(source) == lines


def test_the_product_reads_and_writes_utf_8_whatever_a_locale_is():
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := by_the_locale(path.read_text()))
    }
    assert found == {}


ASKS = {
    "AsyncClient",
    "Client",
    "delete",
    "get",
    "head",
    "patch",
    "post",
    "put",
    "request",
    "stream",
}


def by_a_proxy(source):
    """The lines that ask by the proxy that a shell names, without a word that they may."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        of = getattr(getattr(call.func, "value", None), "id", "")
        is_httpx = of == "httpx" and name in ASKS
        said = is_httpx and "trust_env" in {keyword.arg for keyword in call.keywords}
        if name == "urlopen" or (is_httpx and not said):
            found.append(call.lineno)
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("httpx.AsyncClient(transport=transport)", [1]),
        ("httpx.get(url)", [1]),
        ("httpx.Client(trust_env=False)", []),
        ("httpx.URL(url)", []),
        ("urllib.request.urlopen(url)", [1]),
        ("direct.ask(url, seconds=2)", []),
        ("answer.headers.get(name)", []),
    ],
)
def test_what_goes_by_a_proxy_is_found(source, lines):
    assert by_a_proxy(source) == lines


def test_whoever_asks_says_whether_it_may_be_by_a_proxy():
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in ("services", "shared", "stack", "tests/machines")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := by_a_proxy(path.read_text(encoding="utf-8")))
    }
    assert found == {}


FELLOW = """
import sys
from services.ops.cli import app, terminal
sys.stdout.isatty = lambda: True
app.command("greet")(lambda: terminal.results().print("Zoë"))
app(["greet"])
"""
DEMO = """
from stack.processes import stop_on_signals
stop_on_signals()
print("Zoë")
"""


@pytest.mark.parametrize("script", [FELLOW, DEMO], ids=["fellow", "make demo"])
def test_a_terminal_that_lacks_a_letter_is_shown_which(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "koi8-r"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "Zo\\xeb\n"


LIBRARIES = {name: FOREIGN[name] for name in FOREIGN if "PROM" in name.upper() or "GUNI" in name}


@pytest.mark.parametrize("told", [{}, {"PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "koi8-r"}])
def test_what_make_starts_is_of_utf_8(told, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexec env\n")
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={tmp_path}/python"],
        cwd=ROOT, env=os.environ | LIBRARIES | told, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith("PYTHON")]
    assert sorted(said) == [f"PYTHON={tmp_path}/python", "PYTHONUTF8=1"]
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names & LIBRARIES.keys() == set()
