"""`make test-matrix`: `make demo`, then `make test`, in fresh clones on machines of all kinds.

A cell is a machine and how one works on it. `MATRIX=debian-13,ubuntu-24.04` chooses some.
"""

import argparse
import contextlib
import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker

from stack.folders import hold_venv
from stack.processes import stop_on_signals
from stack.servers import containers, data
from tests.machines import images, standins, table
from tests.machines.cells import CELLS, Cell
from tests.machines.machine import Machine, Ran

FOLDER = images.FOLDER
BUNDLE = "/opt/order-fellow.bundle"
PREPARE_SECONDS = 600.0
SECONDS = {"demo": 600.0, "rights": 1800.0, "test": 3600.0}  # after which a target is over
# What the version of a server changes first; a part of `make test`.
RIGHTS = "tests/integration/rights tests/integration/story tests/integration/ops"
COMMANDS = {
    "demo": "make demo",
    "rights": "make setup && .venv/bin/python -m stack.servers && "
    f".venv/bin/python -m pytest -q {RIGHTS}",
    "test": "make test",
}
# pytest's last line, by what it always has.
SUMMARY = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$", re.MULTILINE)
TERMINAL = re.compile(r"\x1b\[[\d;]*m")


class UnpreparedError(Exception):
    """A machine did not become what its cell says; the message says where to look."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        holds: whether all that ran passed; None where nothing could be run.
        versions: what the machine had in the end.
        demo: what to say of `make demo`.
        rights: what to say of the tests of `RIGHTS`, run alone.
        test: what to say of `make test`.
    """

    holds: bool | None
    versions: str = table.NOT_TRIED
    demo: str = table.NOT_TRIED
    rights: str = table.NOT_TRIED
    test: str = table.NOT_TRIED


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the cells; returns 0 when all that could be tried hold, 3 when none could be."""
    parser = argparse.ArgumentParser(prog="make test-matrix", description=__doc__)
    parser.add_argument("cells", nargs="*", help="cells, separated by commas; all when none")
    parser.add_argument("--table", type=Path, help="a page of the docs that has the table")
    parser.add_argument("--only", choices=SECONDS, help="one of them alone")
    chosen = parser.parse_args(arguments)
    targets = [chosen.only] if chosen.only else ["demo", "test"]
    names = [name for words in chosen.cells for name in words.split(",") if name] or list(CELLS)
    unknown = sorted(set(names) - set(CELLS))
    if unknown:
        print(f"There is no cell {', '.join(unknown)}; there are {', '.join(CELLS)}.")
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    stop_on_signals()
    hold_venv()
    commit = _git("rev-parse", "--short", "HEAD")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        with contextlib.closing(images.engine()) as client:
            outcomes = dict(_try_all(client, names, targets))
    except images.EngineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    rows = [
        (
            name,
            CELLS[name].machine,
            found.versions,
            found.demo,
            found.rights,
            found.test,
            f"{today}, {commit}",
        )
        for name, found in outcomes.items()
    ]
    print("\n" + "\n".join(" | ".join(row) for row in (table.HEAD, *rows)))
    if chosen.table:
        table.renew(chosen.table, rows)
    return _code([found.holds for found in outcomes.values()])


def _code(held: Sequence[bool | None]) -> int:
    if all(each is None for each in held):
        return 3
    return 1 if False in held else 0


def _try_all(
    client: docker.DockerClient, names: Sequence[str], targets: Sequence[str]
) -> Iterator[tuple[str, Outcome]]:
    if _git("status", "--porcelain"):
        print("What is not committed is not tried: the machines clone HEAD.")
    owner = data.owner()
    containers.remove_abandoned(owner)
    folder = data.throwaway("matrix", durable=True)
    for name in names:
        try:
            found = _try(client, name, targets, owner, folder)
        except images.EngineError as error:
            found = Outcome(None, test=f"not to be had here, because {error}")
            print(f"{name}: {found.test}", flush=True)
        except UnpreparedError as error:
            found = Outcome(False, test=f"could not be: {error}")
            print(f"{name}: {found.test}", flush=True)
        yield name, found


def _try(
    client: docker.DockerClient, name: str, targets: Sequence[str], owner: str, folder: Path
) -> Outcome:
    cell, taken = CELLS[name], {}
    if cell.images:
        names = [containers.image(service) for service in ("rabbitmq", "postgres")]
        taken = {name: standins.ensure(name) for name in names}
    words, holds, versions = {}, True, ""
    with Machine(client, cell.suite, owner, folder, cell.options) as machine:
        _prepare(machine, cell, name, taken)
        for target in targets:
            ran = _make(machine, cell, name, target)
            words[target] = "; ".join(f"{_summary(each)}, {each.seconds:.0f} s" for each in ran)
            print(f"{name}: {target}: {words[target]}", flush=True)
            holds = holds and all(each.code == 0 for each in ran)
            if any(each.code is None for each in ran):
                break
            versions = _versions(machine, name)
    return Outcome(holds, versions, **words)


def _prepare(machine: Machine, cell: Cell, name: str, taken: Mapping[str, str]) -> None:
    bundle = subprocess.run(
        ("git", "bundle", "create", "--quiet", "-", "HEAD"),
        cwd=images.ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    machine.put(bundle, str(Path(BUNDLE).parent), Path(BUNDLE).name)
    steps = [(cell.prepare, "root")] if cell.prepare else []
    clone = f"git -c advice.detachedHead=false clone --quiet {BUNDLE} "
    steps += [(clone + shlex.quote(folder), cell.user) for folder in cell.clones]
    steps += [
        (f"sed -i 's|image: {one}$|image: {own}|' {shlex.quote(folder)}/docker-compose.yml", "root")
        for folder in cell.clones
        for one, own in taken.items()
    ]
    for number, (script, user) in enumerate(steps):
        log = FOLDER / f"{name}.prepare{number}.log"
        ran = machine.run(script, log, seconds=PREPARE_SECONDS, user=user)
        if ran.code != 0:
            raise UnpreparedError(f"the machine could not be prepared: see {log}")


def _make(machine: Machine, cell: Cell, name: str, target: str) -> list[Ran]:
    def run(number: int) -> Ran:
        which = f"{number}" if len(cell.clones) > 1 else ""
        log = FOLDER / f"{name}.{target}{which}.log"
        script = f"{cell.before}{COMMANDS[target]}"
        clone = cell.clones[number]
        return machine.run(script, log, seconds=SECONDS[target], user=cell.user, folder=clone)

    with ThreadPoolExecutor(len(cell.clones)) as pool:
        try:
            return list(pool.map(run, range(len(cell.clones))))
        except BaseException:
            machine.kill()  # else the pool would wait for what runs there
            raise


def _summary(ran: Ran) -> str:
    if ran.code is None:
        return "did not end in time"
    found = SUMMARY.findall(TERMINAL.sub("", ran.output()))
    if not found:
        return "holds" if ran.code == 0 else f"fails ({ran.code})"
    number = sum(int(count) for count in re.findall(r"(\d+) (?:passed|failed|error)", found[-1]))
    return f"ran {number}: {found[-1]}"


def _versions(machine: Machine, name: str) -> str:
    script = (
        "python3 -c 'import platform; print(platform.python_version())'; "
        "dpkg-query --showformat '${Package} ${Version}\\n' --show rabbitmq-server "
        "'postgresql-[0-9]*' 2> /dev/null "
        "| sed -nE 's/^(rabbitmq-server|postgresql-[0-9]+) ([^-]*).*/\\2/p'"
    )
    ran = machine.run(script, FOLDER / f"{name}.versions.log", seconds=60)
    return ", ".join(ran.output().split())


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ("git", *arguments), cwd=images.ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
