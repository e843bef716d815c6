"""`fellow alerts`: testing the delivery of alerts."""

import socket

import typer

from services.ops.alerting.channels import NotSentError, channels
from services.ops.cli.terminal import FAILED, MISUSED, find_system, results, stop

app = typer.Typer(help="Alerts to people.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Makes a group: Typer would turn a single command into the group itself."""


@app.command()
def test() -> None:
    """Send a test message by each channel, and print the answers.

    Exit code 1 if one failed. Check that each message arrived: a server may accept a message and
    not deliver it.
    """
    all_channels = channels(find_system().settings)
    if not all_channels:
        stop("There is no channel: set ALERT_EMAIL_TO, ALERT_WEBHOOK_URL, or both.", MISUSED)
    text = f"Nothing is wrong. `fellow alerts test` has sent this from {socket.gethostname()}."
    failed = False
    for channel in all_channels:
        try:
            answer = channel.send("Order Fellow: a test of alerts", text)
        except NotSentError as error:
            answer, failed = f"not sent: {error}", True
        results().print(f"{channel.name}: {answer}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)
