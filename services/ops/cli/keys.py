"""`fellow keys`: new ones."""

import typer

from services.ops import keys

app = typer.Typer(help="Keys and passwords.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without it a group of one command would be that command.
    pass


@app.command()
def generate() -> None:
    """Print new random keys and passwords, in the form of an env file."""
    for name, value in keys.generate().items():
        print(f"{name}={value}")
