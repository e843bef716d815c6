"""What the tests need, said in a sentence where it is not there."""

import os
import re
import subprocess
import sys

import pytest
from docker.errors import DockerException, ImageNotFound

from shared import lease
from stack.folders import ROOT
from stack.servers.ports import Port, PortTakenError
from tests import programs
from tests.machines import compose, standins
from tests.machines.deployment import Deployment, take_away


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


class Machine:
    """One of root's, whose distribution has some packages; what is installed is in a folder."""

    def __init__(self, folder, *has):
        self.folder, self.has, self.asked, self.is_away = folder, has, [], False

    def has_candidate(self, package):
        return package in self.has

    def install(self, *packages):
        self.asked.append(packages)
        if self.is_away:
            raise programs.debian.InstallError("no route to host")
        for package in packages:
            if package in self.has:
                (self.folder / package).touch(0o755)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    def have(*has, is_root=True):
        made = Machine(tmp_path / "bin", *has)
        monkeypatch.setattr(programs.debian, "can_install", lambda: is_root)
        monkeypatch.setattr(programs.debian, "has_candidate", made.has_candidate)
        monkeypatch.setattr(programs.debian, "install", made.install)
        return made

    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "TRIED", tmp_path / "made" / "tried", raising=False)
    return have


@pytest.mark.parametrize(
    ("is_root", "has", "asked"),
    [
        (True, ["chromium-headless-shell"], [("chromium-headless-shell",)]),
        (True, [], []),
        (False, ["chromium-headless-shell"], []),
    ],
)
def test_another_browser_does_until_the_small_one_is_there(machine, is_root, has, asked):
    made = machine(*has, is_root=is_root)
    (made.folder / "google-chrome").touch(0o755)
    programs.ensure([programs.BROWSER])
    assert made.asked == asked
    has_it = is_root and bool(has)
    name = "chromium-headless-shell" if has_it else "google-chrome"
    assert programs.program(programs.BROWSER) == str(made.folder / name)


def test_a_small_browser_that_cannot_be_installed_is_tried_once(machine):
    """Without a network, apt takes minutes to say so."""
    made = machine("chromium-headless-shell")
    (made.folder / "chromium").touch(0o755)
    made.is_away = True
    for _ in range(2):
        programs.ensure([programs.BROWSER])
    assert made.asked == [("chromium-headless-shell",)]


def test_where_the_small_browser_does_not_exist_the_large_one_is_installed(machine):
    made = machine("chromium", "curl")
    programs.ensure([programs.BROWSER, "curl"])
    assert programs.program(programs.BROWSER) == str(made.folder / "chromium")
    assert programs.program("curl") == str(made.folder / "curl")


class Engine:
    """One without a way to a registry, that has what was made on it."""

    def __init__(self):
        self.images, self.made = self, []

    def close(self):
        pass

    def get(self, name):
        if name not in self.made:
            raise ImageNotFound(name)

    def pull(self, name):
        raise DockerException("429 Too Many Requests")


@pytest.mark.parametrize("name", ["rabbitmq:4.3.6-management", "python:3.13.5-slim"])
def test_a_stand_in_is_never_taken_for_the_official_image(monkeypatch, name):
    engine = Engine()
    monkeypatch.setattr(standins.images, "engine", lambda: engine)
    monkeypatch.setattr(standins, "_make", lambda client, own, *_, **__: client.made.append(own))
    for _ in range(2):
        assert standins.ensure(name) == f"order-fellow-standin/{name}"
    assert engine.made == [f"order-fellow-standin/{name}"]


def test_a_deployment_names_what_stands_in(tmp_path):
    names = re.findall(r"^    image: ([a-z]\S+)", (ROOT / "docker-compose.yml").read_text(), re.M)
    names += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name.partition(":")[0] for name in names} >= {"rabbitmq", "postgres", "python"}
    Deployment(tmp_path, taken={name: f"order-fellow-standin/{name}" for name in names})
    for file in ("docker-compose.yml", "Dockerfile"):
        text = (tmp_path / file).read_text()
        said = re.findall(r"^(?: *image: |FROM )([a-z]\S+)", text, re.MULTILINE)
        assert said
        assert all(name.startswith("order-fellow-standin/") for name in said), said


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """What it is told, and with which environment, instead of it."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    calls, environments = tmp_path / "calls", tmp_path / "environments"
    program.write_text(
        f'#!/bin/sh\necho "$COMPOSE_PROJECT_NAME $*" >> "{calls}"\nenv >> "{environments}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls, environments


def test_what_a_killed_run_has_deployed_is_taken_away(tmp_path, docker):
    (killed, ended), (alive, held) = (lease.make(tmp_path, compose.PREFIX) for _ in range(2))
    name = Deployment(killed).name
    os.close(ended)
    lease.remove_abandoned(tmp_path, compose.PREFIX, remove=compose.take_away)
    down, images = docker[0].read_text().splitlines()
    assert re.fullmatch(rf"{name} compose .* down --volumes --remove-orphans", down)
    assert images.split()[-2:] == [f"{name}:latest", f"{name}:before"]
    assert (killed.exists(), alive.exists()) == (False, True)
    os.close(held)


def test_a_deployment_is_that_of_its_folder_and_of_no_shell(tmp_path, docker, monkeypatch):
    """One whose COMPOSE_FILE is a shop's would have the shop's volumes removed."""
    read = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())
    assert "LOG_LEVEL" in read
    for name in {*read, "COMPOSE_ENV_FILES", "COMPOSE_FILE", "COMPOSE_PROFILES"}:
        monkeypatch.setenv(name, "/opt/of-the-shell")
    folder = tmp_path / "folder"
    folder.mkdir()
    deployment = Deployment(folder)
    deployment.shell("docker compose ps")
    take_away(folder)
    calls, environments = (told.read_text() for told in docker)
    assert calls.splitlines()[0] == f"{deployment.name} compose ps"
    assert len(calls.splitlines()) == 3
    assert "/opt/of-the-shell" not in environments


def test_a_deployment_holds_its_ports_while_nothing_listens_there(tmp_path):
    deployment = Deployment(tmp_path)
    for number in map(int, map(str, deployment.ports.values())):
        with pytest.raises(PortTakenError):
            Port(named=number)


@pytest.mark.parametrize("module", ["tests.machines.compose", "tests.machines.matrix"])
def test_without_an_engine_it_is_a_sentence(module, tmp_path):
    code, said, complaint = run(module, DOCKER_HOST=f"unix://{tmp_path}/nowhere")
    assert (code, said) in ((1, ""), (2, ""))
    assert complaint.startswith("No Docker engine answers")
    assert complaint.count("\n") == 1
