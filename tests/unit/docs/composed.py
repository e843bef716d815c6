"""The compose files as an engine merges them: one, or both with docker-compose.cluster.yml."""

from copy import deepcopy
from typing import Any

import yaml

from stack.folders import ROOT

FILE, CLUSTER = "docker-compose.yml", "docker-compose.cluster.yml"


class _Reset:
    """Marks what an override removes (`!reset`)."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!reset", lambda *_: _Reset)


def alone() -> dict[str, Any]:
    """Return docker-compose.yml."""
    return _read(FILE)


def with_cluster() -> dict[str, Any]:
    """Return both, merged as compose does (docs.docker.com, "Merge and override"; "extends")."""
    base, over = alone(), _read(CLUSTER)
    services = deepcopy(base["services"])
    for name, service in over["services"].items():
        extended = service.pop("extends", None)
        if extended:
            assert extended["file"] == FILE
            services[name] = deepcopy(base["services"][extended["service"]])
        services[name] = _merged(services[name], service)
    kinds = {kind: base[kind] | over.get(kind, {}) for kind in ("networks", "volumes", "secrets")}
    return base | kinds | {"services": services}


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.load((ROOT / name).read_text(), _Loader)
    return read


def _merged(base: Any, over: Any) -> Any:
    if over is _Reset:
        return _Reset
    if isinstance(over, dict):
        base = dict.fromkeys(base) if isinstance(base, list) else base or {}
        both = base | {name: _merged(base.get(name), value) for name, value in over.items()}
        return {name: value for name, value in both.items() if value is not _Reset}
    if isinstance(over, list) and isinstance(base, list):
        # A mount replaces another one with the same target.
        taken = {_target(one) for one in over}
        return [one for one in base if _target(one) not in taken] + over
    return over


def _target(one: Any) -> Any:
    return one.split(":")[1] if isinstance(one, str) and one.count(":") else str(one)
