"""`make clean`'s part outside the checkout: servers that a killed run left, and their data."""

import shutil

from shared import lease
from stack.servers import clear, data_folder, docker_is_there


def main() -> None:
    """Remove all server data of this checkout."""
    clear(data_folder("run"))
    throwaway = data_folder("throwaway")
    if throwaway.is_dir():
        for folder in throwaway.iterdir():
            clear(folder)
    shutil.rmtree(throwaway.parent, ignore_errors=True)
    if docker_is_there():
        from stack import containers

        containers.remove_abandoned(throwaway.parent.name, lease.is_held)
        containers.remove_volumes(throwaway.parent.name)


if __name__ == "__main__":
    main()
