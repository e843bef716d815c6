"""`fellow`: the operators' command. Each group of commands is a module, mounted below."""

import io
import sys
from typing import Annotated

import typer

from services.ops.cli import acting
from services.ops.cli.businesses import (
    account,
    customer,
    kyc,
    limit,
    secrets,
    send,
    suppressions,
    trail,
)
from services.ops.cli.messages import dead, journal, outbox, queues
from services.ops.cli.system import alerts, audit, doctor, keys, retention, users
from shared.product import VERSION

app = typer.Typer(
    help="Order Fellow, for its operators. The system is the one of AMQP_URL and DATABASE_URL or, "
    "where neither is set, the one that `make run` has started in this checkout.",
    cls=acting.Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fellow {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    who: Annotated[str, typer.Option(acting.AS, envvar=acting.VARIABLE, help=acting.HELP)] = "",
) -> None:
    # A terminal that is not UTF-8 gets escapes for the characters it lacks. Programs and files get
    # UTF-8: JSON requires it (RFC 8259, 8.1), and an escape in a CSV would change a name.
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    acting.set_operator(who)


app.command("doctor")(doctor.examine)
app.command("queues")(queues.show)
app.command("trail")(trail.show)
app.command("retention")(retention.show)
app.command()(send.send)
app.command()(limit.limit)
app.add_typer(dead.app, name="dead")
app.add_typer(outbox.app, name="outbox")
app.add_typer(account.app, name="account")
app.add_typer(customer.app, name="customer")
app.add_typer(suppressions.app, name="suppressions")
app.add_typer(secrets.app, name="secrets")
app.add_typer(audit.app, name="audit")
app.add_typer(alerts.app, name="alerts")
app.add_typer(kyc.app, name="kyc")
app.add_typer(journal.app, name="journal")
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
