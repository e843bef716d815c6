"""Output on terminals and pipes, and errors as messages."""

import io
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import psycopg2
import pytest
import typer
from amqp.exceptions import MessageNacked
from kombu.exceptions import OperationalError
from sqlalchemy import exc
from sqlalchemy.exc import DatabaseError
from typer.testing import CliRunner

from services.ops import cli
from services.ops.cli import terminal
from services.ops.cli.businesses import customer
from services.ops.console import app as console
from shared.ids import new_id
from shared.web.results import PageError

CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"
HIDES_A_ROW = "\x1b[1A\x1b[2K\r"
CSI_OF_C1 = "\x9b2J"
TURNED = "\u202eevil"


@pytest.mark.parametrize("text", [CLIPBOARD, HIDES_A_ROW, CSI_OF_C1, TURNED])
def test_control_characters_are_escaped_on_a_terminal(text):
    shown = io.StringIO()
    console = terminal.results(file=shown, force_terminal=True, color_system=None, width=200)
    table = terminal.Table("reason", header_style=None)
    table.add_row(text)
    console.print(table)
    console.print(f"body: {text}\n\tZoë ☕ قلم")
    assert not set(shown.getvalue()) & {"\x1b", "\x07", "\r", "\x9b", "\u202e"}
    assert "\n\tZoë ☕ قلم".expandtabs() in shown.getvalue().expandtabs()


def test_ids_stay_whole_on_a_narrow_terminal():
    shown = io.StringIO()
    console = terminal.results(file=shown, force_terminal=True, color_system=None, width=80)
    table = terminal.Table("accepted", "number", "order", "company", "customer", "status")
    ids = [str(new_id()) for _ in range(2)]
    email = f"{'z' * 40}@shop.example"
    table.add_row("2026-11-30 12:00:00Z", "", ids[0], "Kettle & Co", email, "PENDING")
    table.add_row("2026-11-30 12:00:00Z", "1001", ids[1], "Kettle & Co", email, "not recorded")
    console.print(table)
    said = shown.getvalue()
    assert all(id_ in said for id_ in ids)
    assert "…" not in said
    assert sum(line.count("z") for line in said.splitlines()) == 80
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("text", ["99999999999999d", "9999999d", "9" * 5_000 + "s"])
def test_an_age_out_of_range_is_refused(text):
    with pytest.raises(typer.Exit) as ended:
        terminal.parse_age("--older", text)
    assert ended.value.exit_code == terminal.MISUSED


def test_a_pipe_gets_unmodified_text():
    shown = io.StringIO()
    terminal.results(file=shown).print(CSI_OF_C1 + TURNED)
    assert shown.getvalue() == f"{CSI_OF_C1}{TURNED}\n"


def test_the_answer_of_the_last_of_several_database_hosts_is_shown(capsys):
    away = "Connection timed out\n\tIs the server running on that host and accepting connections?"
    hosts = [f'connection to server at "db{n}.internal.shop.example"' for n in range(3)]
    last = 'FATAL:  password authentication failed for user "ops"'
    answers = f"{hosts[0]} failed: {away}\n{hosts[1]} failed: {away}\n{hosts[2]} failed: {last}\n"
    with pytest.raises(typer.Exit), terminal.database_trouble():
        raise DatabaseError("SELECT 1", None, psycopg2.OperationalError(answers))
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith('FATAL: password authentication failed for user "ops"')


def test_a_long_text_below_an_id_is_folded():
    shown = io.StringIO()
    console = terminal.results(file=shown, force_terminal=True, color_system=None, width=100)
    table = terminal.Table(show_header=False)
    id_ = str(new_id())
    for contact in ("c" * 400 + "the last", "short"):
        table.add_row("account", id_)
        table.add_row("contact", contact)
    console.print(table)
    said = shown.getvalue()
    assert said.count(id_) == 2
    assert "the last" in said
    assert said.count("c" * 70) >= 4


class _Screen(io.BytesIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii"])
def test_pipes_get_utf_8_and_terminals_their_own_encoding(monkeypatch, encoding):
    name = {"name": "Zoë 😀"}
    for kind, is_read in ((io.BytesIO, True), (_Screen, False)):
        written = kind()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        cli._options(False, "")
        terminal.print_json(name)
        sys.stdout.flush()
        said = written.getvalue()
        if is_read:
            assert json.loads(said.decode()) == name
        else:
            assert "\\U0001f600" in said.decode(encoding)


@pytest.mark.parametrize("error", [OperationalError("closed"), MessageNacked()])
def test_broker_errors_end_a_command_with_a_message(monkeypatch, capsys, error):
    """kombu's own errors and a nack are neither OSErrors nor AMQPErrors."""
    monkeypatch.setattr(terminal, "open_connection", lambda _: nullcontext())
    system = SimpleNamespace(settings=SimpleNamespace(amqp_url="amqp://ops:secret@broker"))
    with pytest.raises(typer.Exit), terminal.broker(system):
        raise error
    assert "The broker at broker:5672 does not confirm it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OperationalError("closed"), MessageNacked(), exc.OperationalError("", {}, "closed")]
)
@pytest.mark.parametrize(("option", "undone"), [("--yes", "erased"), ("--dry-run", "counted")])
def test_an_erasure_that_fails_half_way_says_so(monkeypatch, error, option, undone):
    def fail(*_):
        raise error

    monkeypatch.setattr(customer.customers, "erase", fail)
    monkeypatch.setattr(customer.customers, "count", fail)
    for name in ("sign_in", "engine", "actor"):
        monkeypatch.setattr(customer, name, lambda *_: None)
    monkeypatch.setattr(customer, "broker", nullcontext)
    arguments = ["erase", "zoe@shop.example", "--reason", "request 17", option]
    ended = CliRunner().invoke(customer.app, arguments)
    assert ended.exit_code == 1
    assert f"Not everything was {undone}: " in ended.stderr
    assert "Run it again." in ended.stderr


@pytest.mark.parametrize("error", [OperationalError("closed"), MessageNacked()])
def test_broker_errors_become_a_page_of_the_console(monkeypatch, error):
    monkeypatch.setattr(console, "open_connection", lambda _: nullcontext())
    poller = SimpleNamespace(broker_error=None, at_broker=nullcontext)
    opened = console._broker(SimpleNamespace(amqp_url="amqp://ops:secret@broker"), poller)
    with pytest.raises(PageError, match="does not confirm it"), opened(None):
        raise error
