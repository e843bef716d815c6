"""What others have written, on an operator's terminal."""

import io

import pytest
from rich.table import Table

from services.ops.cli import terminal

CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"
HIDES_A_ROW = "\x1b[1A\x1b[2K\r"
CSI_OF_C1 = "\x9b2J"
TURNED = "\u202eevil"


@pytest.mark.parametrize("text", [CLIPBOARD, HIDES_A_ROW, CSI_OF_C1, TURNED])
def test_a_terminal_is_shown_controls_and_not_given_them(text):
    shown = io.StringIO()
    console = terminal.results(file=shown, force_terminal=True, color_system=None, width=200)
    table = Table("reason", box=None, header_style=None)
    table.add_row(text)
    console.print(table)
    console.print(f"body: {text}\n\tZoë ☕ قلم")
    assert not set(shown.getvalue()) & {"\x1b", "\x07", "\r", "\x9b", "\u202e"}
    assert "\n\tZoë ☕ قلم".expandtabs() in shown.getvalue().expandtabs()


def test_a_pipe_is_given_what_there_is():
    shown = io.StringIO()
    terminal.results(file=shown).print(CSI_OF_C1 + TURNED)
    assert shown.getvalue() == f"{CSI_OF_C1}{TURNED}\n"
