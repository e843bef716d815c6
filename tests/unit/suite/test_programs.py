"""What the tests need, said in a sentence where it is not there."""

import os
import re
import subprocess
import sys

import pytest
from docker.errors import DockerException, ImageNotFound

from shared import lease
from stack.folders import ROOT
from tests import programs
from tests.machines import compose, standins
from tests.machines.deployment import Deployment


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


def test_what_a_killed_run_has_deployed_is_taken_away(tmp_path, monkeypatch):
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\necho "$COMPOSE_PROJECT_NAME $*" >> "$CALLS"\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (killed, ended), (alive, held) = (lease.make(tmp_path, compose.PREFIX) for _ in range(2))
    name = Deployment(killed).name
    os.close(ended)
    lease.remove_abandoned(tmp_path, compose.PREFIX, remove=compose.take_away)
    down, images = (tmp_path / "calls").read_text().splitlines()
    assert re.fullmatch(rf"{name} compose .* down --volumes --remove-orphans", down)
    assert images.split()[-2:] == [f"{name}:latest", f"{name}:before"]
    assert (killed.exists(), alive.exists()) == (False, True)
    os.close(held)


@pytest.mark.parametrize("module", ["tests.machines.compose", "tests.machines.matrix"])
def test_without_an_engine_it_is_a_sentence(module, tmp_path):
    code, said, complaint = run(module, DOCKER_HOST=f"unix://{tmp_path}/nowhere")
    assert (code, said) in ((1, ""), (2, ""))
    assert complaint.startswith("No Docker engine answers")
    assert complaint.count("\n") == 1
