"""`python -m services.ops` is `fellow`."""

from services.ops.cli import app

if __name__ == "__main__":
    app(prog_name="fellow")
