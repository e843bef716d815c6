"""Passwords are compared in turns: what strangers type takes no more memory than there is."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from shared.http.errors import OVERLOADED, ApiError
from shared.security import passwords
from stack.folders import ROOT
from tests.cheap_hashes import IN_FULL
from tests.integration.arrange import workers
from tests.integration.conftest import running_ingress

MIB = 1024 * 1024
HASH = 64 * MIB
"""RFC 9106, 4, the second recommended option: what one hash takes."""
PROCESS = 140 * MIB
"""What a process of ours takes beside: workers of the ingress and the console, measured."""


def peak(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def test_sign_ins_at_once_take_the_memory_of_a_few(module_amqp_url, module_database_url, tmp_path):
    more = {"WEB_CONCURRENCY": "1", IN_FULL: "1"}
    with running_ingress(tmp_path, module_amqp_url, module_database_url, **more) as api:
        (worker,) = workers(api.pid)

        def sign_in(number):
            body = {"email": f"nobody{number}@kettle.example", "password": "a stranger's guess"}
            return api.http.post("/users/auth/login/", json=body)

        sign_in(0)
        forget_peak(worker)
        before = peak(worker)
        with ThreadPoolExecutor(12) as crowd:
            answers = list(crowd.map(sign_in, range(24)))
        taken = peak(worker) - before
    assert {answer.status_code for answer in answers} <= {401, 503}
    assert answers[0].status_code == 401
    assert HASH <= taken < (passwords.parallel_hashes() + 1) * HASH


def test_who_would_wait_for_long_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(passwords, "PATIENCE", 0.05)
    stored = passwords.hash_password("a long password")
    taken = [passwords._turn() for _ in range(passwords.parallel_hashes())]
    for turn in taken:
        turn.__enter__()
    try:
        for ask in (
            lambda: passwords.matches("a long password", stored),
            lambda: passwords.matches("a long password", None),
            lambda: passwords.hash_password("a long password"),
        ):
            with pytest.raises(ApiError) as refused:
                ask()
            assert (refused.value.status, refused.value.code) == OVERLOADED[:2]
            assert refused.value.headers["Retry-After"]
    finally:
        for turn in taken:
            turn.__exit__(None, None, None)
    assert passwords.matches("a long password", stored)


# docs/deploying.md: what the file gives an ingress, and what one with more workers has to be given.
DOCUMENTED = re.compile(
    r"up to `WEB_CONCURRENCY=(\d+)`.*?`INGRESS_MEMORY`.*?(\d+) MiB and (\d+) MiB for each worker",
    re.DOTALL,
)


def bytes_of(limit):
    number, unit = re.fullmatch(
        r"(\d+)([mg])", limit.partition(":-")[2].rstrip("}") or limit
    ).groups()
    return int(number) * (MIB if unit == "m" else 1024 * MIB)


def needs(count):
    # The master of gunicorn, its workers and, beside them, a command of an operator.
    return (count + 2) * PROCESS + count * passwords.parallel_hashes(count) * HASH


@pytest.mark.parametrize(("name", "count"), [*(("ingress", n) for n in range(1, 9)), ("ops", 1)])
def test_a_container_has_memory_for_them(name, count, monkeypatch):
    monkeypatch.setattr(passwords.os, "cpu_count", lambda: 64)
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    most, base, each = map(
        int, DOCUMENTED.search((ROOT / "docs" / "deploying.md").read_text()).groups()
    )
    if name == "ingress":
        assert service["mem_limit"].startswith("${INGRESS_MEMORY:-")
        assert int(re.findall(r"\d+", service["environment"]["WEB_CONCURRENCY"])[-1]) <= most
    has = bytes_of(service["mem_limit"]) if count <= most else (base + each * count) * MIB
    assert needs(count) < has
