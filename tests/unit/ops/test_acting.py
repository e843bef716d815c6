"""The operator who runs a command."""

import os
import socket
import sys
from types import SimpleNamespace

import pytest
import typer

from services.ops.cli import acting
from services.ops.cli.system import users


@pytest.mark.parametrize("named", ["ada", ""])
def test_a_local_user_without_a_name_is_recorded_by_number(monkeypatch, named):
    """A platform may run containers as any user id."""
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, named)
    system = SimpleNamespace(settings=SimpleNamespace(amqp_url="amqp://ops:secret@broker"))
    assert acting.actor_of(system).name == "ops"
    assert acting.actor_of(system).address == f"{named or 54321}@{socket.gethostname()}"


@pytest.mark.parametrize(
    ("ask", "remedy"),
    [
        (lambda system: acting.personal_target(system, is_named=True), "FELLOW_PASSWORD"),
        (lambda _: users.add("wole"), "--generate"),
    ],
)
@pytest.mark.parametrize("given", ["{}\n{}\n", ""])
def test_no_password_is_read_from_a_pipe(monkeypatch, tmp_path, capsys, ask, remedy, given):
    """In `docker compose exec -T ... --body - < FILE` its first line is the body's."""
    open_any = os.open

    def open_no_terminal(path, *arguments, **options):
        if path == "/dev/tty":
            raise FileNotFoundError(path)
        return open_any(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_no_terminal)
    monkeypatch.delenv("FELLOW_PASSWORD", raising=False)
    monkeypatch.setattr(acting, "_operator", "ada")
    body = tmp_path / "body.json"
    body.write_text(given)
    system = SimpleNamespace(settings=SimpleNamespace(amqp_url="amqp://ops:secret@broker"))
    with body.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(typer.Exit) as ended:
            ask(system)
    assert ended.value.exit_code == 2
    assert remedy in capsys.readouterr().err
