"""In production whoever acts, or is shown persons, by the command is somebody."""

from urllib.parse import urlsplit
from uuid import UUID

import pytest
import typer
from sqlalchemy import select

from services.ops.cli import app
from services.ops.cli.acting import operator_first
from shared.bus.contract.events import OpsDataViewed, decode
from shared.db.models import OpsUser, OutboxMessage
from stack.servers.credentials import as_service
from tests.integration.ops.cli.test_cli import fellow

ID = str(UUID(int=7))
EMAIL = "zoe@shop.example"
PERSONAL = (
    ("account", "show", EMAIL),
    ("account", "block", EMAIL, "--reason", "x", "-y"),
    ("account", "unblock", EMAIL, "-y"),
    ("audit", "list"),
    ("customer", "erase", EMAIL, "--reason", "x", "-y"),
    ("customer", "export", EMAIL),
    ("dead", "discard", "orders.intake", "--all", "--because", "x", "-y"),
    ("dead", "edit", "orders.intake", ID),
    ("dead", "list", "orders.intake"),
    ("dead", "rehearse", "orders.intake", ID),
    ("dead", "replay", "orders.intake", "--all", "-y"),
    ("dead", "retry-now", "orders.intake", "-y"),
    ("dead", "show", "orders.intake", ID),
    ("dead", "waiting", "orders.intake"),
    ("journal", "replay", "--from", "2026-11-01T00:00:00Z", "--to-queue", "orders.intake", "-y"),
    ("kyc", "approve", EMAIL, "-y"),
    ("kyc", "ask", EMAIL, "--reason", "x", "-y"),
    ("kyc", "list"),
    ("kyc", "note", EMAIL, "x"),
    ("kyc", "reject", EMAIL, "--reason", "x", "-y"),
    ("kyc", "revoke", EMAIL, "-y"),
    ("kyc", "show", EMAIL),
    ("limit", EMAIL, "--per-second", "5"),
    ("outbox", "discard", "4711", "--because", "x", "-y"),
    ("outbox", "edit", "4711", "-y"),
    ("outbox", "list"),
    ("outbox", "retry", "--all", "-y"),
    ("outbox", "show", "4711"),
    ("secrets", "revoke", EMAIL, "--reason", "x", "-y"),
    ("secrets", "rotate", EMAIL, "-y"),
    ("suppressions", "lift", EMAIL, EMAIL, "--reason", "x", "-y"),
    ("suppressions", "list", EMAIL),
    ("trail", ID),
    ("users", "add", "ada", "--role", "watch", "--generate"),
    ("users", "remove", "ada", "-y"),
    ("users", "reset-second-factor", "ada", "-y"),
    ("users", "role", "ada", "watch"),
    ("users", "sessions", "ada"),
)
OTHERS = {
    "alerts test", "audit verify", "doctor", "queues", "retention", "secrets list", "send",
    "users list",
}  # fmt: skip
"""Of figures and of the state of parts."""


def commands(group, *path):
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, *path, name)
        else:
            yield " ".join((*path, name))


def test_every_command_is_one_or_the_other():
    every = {name for name in commands(typer.main.get_command(app)) if not name.startswith("keys")}
    depth = {name.split()[0] for name in every if " " in name}
    personal = {" ".join(one[: 1 + (one[0] in depth)]) for one in PERSONAL}
    assert every == personal | OTHERS


@pytest.fixture
def production(settings):
    return {
        "ENVIRONMENT": "production",
        "AMQP_URL": as_service(settings.amqp_url, "ops"),
        "DATABASE_URL": as_service(f"{settings.database_url}?sslmode=disable", "ops"),
    }


@pytest.mark.parametrize("arguments", PERSONAL, ids=lambda one: " ".join(one[:2]))
def test_in_production_nobody_acts_or_is_shown_persons_without_a_name(
    settings, production, arguments
):
    code, out, err = fellow(settings, *arguments, **production)
    assert (code, out) == (2, "")
    assert (
        err.strip() == "fellow_ops is no person's user: give --as and your own user of the broker."
    )


@pytest.mark.parametrize("queue", ["kyc.decisions", "secrets.rotate"])
def test_commands_are_not_copied_by_whom_nobody_believes_who_gave_them(settings, production, queue):
    """A decision would count as nobody's, and die."""
    own = urlsplit(settings.amqp_url)
    named = production | {"FELLOW_AS": own.username, "FELLOW_PASSWORD": own.password}
    commands = (
        ("journal", "replay", "--yes", "--from", "2026-01-01", "--to-queue", queue),
        ("dead", "replay", queue, "--all", "--yes"),
        ("dead", "edit", queue, "7", "--body", "/dev/null"),
        ("dead", "retry-now", queue, "--yes"),
    )
    administrators = ("dead", "replay", queue, "--all", "--yes"), {"AMQP_URL": settings.amqp_url}
    for command, by in (*((command, {}) for command in commands), administrators):
        code, out, err = fellow(settings, *command, **named | by)
        assert (code, out) == (2, "")
        assert "believed of fellow_console alone" in err
    # What they have edited is their own: there is just none.
    code, _, err = fellow(settings, *commands[2], **named | administrators[1])
    assert (code, "There is no dead letter 7" in err) == (1, True), err
    console = named | {"AMQP_URL": as_service(settings.amqp_url, "console")}
    code, _, err = fellow(settings, "dead", "replay", queue, "--all", "--yes", **console)
    assert code == 0, err


def test_who_signs_in_to_the_broker_is_who_acts(settings, db, production):
    own = urlsplit(settings.amqp_url)
    add = ("users", "add", "ada", "--role", "watch", "--generate")
    wrong = production | {"FELLOW_PASSWORD": "wrong"}
    assert fellow(settings, *add, "--as", own.username, **wrong)[0] == 1
    assert db.scalars(select(OpsUser)).all() == []
    right = production | {"FELLOW_PASSWORD": own.password}
    for given in (("--as", own.username), (f"--as={own.username}",)):
        code, _, err = fellow(settings, *add, *given, **right)
        assert code == 0, err
    code, _, err = fellow(settings, "audit", "list", **right, FELLOW_AS=own.username)
    assert code == 0, err
    db.rollback()
    told = [decode(row.type, row.body) for row in db.scalars(select(OutboxMessage))]
    assert [fact.by for fact in told] == [own.username] * 3
    assert isinstance(told[-1], OpsDataViewed)


def test_a_services_user_is_nobody_with_its_password_too(settings, production):
    url = urlsplit(production["AMQP_URL"])
    given = production | {"FELLOW_PASSWORD": url.password}
    code, _, err = fellow(settings, "audit", "list", "--as", url.username, **given)
    assert (code, "no person's user" in err) == (2, True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("kyc approve x --as ada -y", "--as ada kyc approve x -y"),
        ("--as ada kyc list", "--as ada kyc list"),
        ("kyc list --as=ada", "--as=ada kyc list"),
        ("kyc note x -- --as", "kyc note x -- --as"),
        ("kyc list --as", "--as kyc list"),
        ("kyc list", "kyc list"),
    ],
)
def test_the_option_may_stand_anywhere(given, meant):
    assert operator_first(given.split()) == meant.split()
