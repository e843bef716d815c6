"""`python -m services.ops`: the `fellow` command."""

from services.ops.cli import main

if __name__ == "__main__":
    main()
