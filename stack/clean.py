"""`make clean`'s part outside the checkout: servers that a killed run left, and their data."""

from shared import lease
from stack.servers import data
from stack.servers.sources import docker_is_there


def main() -> None:
    """Remove all server data of this checkout."""
    data.clear_all()
    if docker_is_there():
        from stack.servers import containers

        containers.remove_abandoned(data.owner(), lease.is_held)
        containers.remove_volumes(data.owner())


if __name__ == "__main__":
    main()
