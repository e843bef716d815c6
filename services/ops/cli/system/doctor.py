"""`fellow doctor`: checks all parts of the system, with advice."""

import typer

from services.ops.cli.terminal import FAILED, AsJson, find_system, print_json, results
from services.ops.doctor import checks

_MARKS = {"fine": "[green]fine  [/]", "look": "[yellow]look  [/]", "broken": "[red]broken[/]"}


def examine(as_json: AsJson = False) -> None:
    """Check broker, topology, database, migrations, mail, clocks, keys and services.

    Exit code 1 if something is broken.
    """
    system = find_system()
    console = results(markup=True, soft_wrap=True)
    found = []
    for check in checks.run(system):
        found.append(check)
        if not as_json:
            console.print(f"{_MARKS[check.state]} {check.about}: ", end="")
            console.print(check.found, markup=False)
            if check.advice:
                console.print(f"       {check.advice}", markup=False)
    if as_json:
        print_json(found)
    if any(check.state == "broken" for check in found):
        raise typer.Exit(FAILED)
