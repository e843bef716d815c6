"""The house can be drawn from memory: no room is too full, and the picture of it is true."""

import re
import tomllib
from collections import Counter

import pytest

from stack.folders import ROOT

MOST = 12
"""Modules beside each other in a folder."""
IN_THE_ORDER_IN_WHICH_THEY_RUN = "shared/db/migrations/versions"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
LAYERS = {
    contract["containers"][0]: contract["layers"]
    for contract in CONTRACTS
    if contract["type"] == "layers"
}


def modules():
    for folder in ("bench", "services", "shared", "stack", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                yield path.relative_to(ROOT)


def test_no_folder_has_more_modules_than_one_can_look_over():
    beside = Counter(str(path.parent) for path in modules())
    del beside[IN_THE_ORDER_IN_WHICH_THEY_RUN]
    assert {folder: count for folder, count in beside.items() if count > MOST} == {}


def test_each_service_and_each_room_of_what_is_shared_is_in_the_table():
    rooms = {
        f"{folder}/{path.name}"
        for folder in ("services", "shared")
        for path in (ROOT / folder).iterdir()
        if (path / "__init__.py").exists()
    }
    shown = re.findall(r"^\| `((?:services|shared)/\w+)` \|", ARCHITECTURE, re.MULTILINE)
    assert set(shown) == rooms


@pytest.mark.parametrize("package", LAYERS)
def test_the_picture_shows_the_layers_that_are_enforced(package):
    """Columns beside each other: a heading, and under it the layers, down to an empty line."""
    picture = re.search(r"```\nservices/ingress .*?```", ARCHITECTURE, re.DOTALL)[0].splitlines()
    title = package.replace(".", "/")
    first, at = next(
        (number, line.index(title)) for number, line in enumerate(picture) if title in line
    )
    beside = re.search(r"\w+/", picture[first][at + len(title) :])
    end = at + len(title) + beside.start() if beside else None
    drawn = []
    for line in picture[first + 1 :]:
        layer = line[at:end].strip("` ")
        if not layer:
            break
        drawn.append(set(layer.split()))
    assert drawn == [set(layer.split(" | ")) for layer in LAYERS[package]]
