"""`make clean`'s part outside the checkout: servers that a killed run left, and their data."""

import sys

from stack.servers import data, debian
from stack.servers.sources import docker_is_there


def main() -> int:
    """Remove all server data of this checkout; returns the exit code."""
    debian.remove_leftovers()
    try:
        if data.in_use():
            print("make run, demo, test or bench is at work here: stop it first", file=sys.stderr)
            return 1
        data.clear_all()
    except data.ForeignFolderError as error:
        print(error, file=sys.stderr)
        return 1
    if docker_is_there():
        from stack.servers import containers

        containers.remove_abandoned(data.owner())
        containers.remove_volumes(data.owner())
    return 0


if __name__ == "__main__":
    sys.exit(main())
