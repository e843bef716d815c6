"""`python -m stack.servers`: get what the tests' servers need, and say so meanwhile."""

import sys

from stack.servers.sources import main

if __name__ == "__main__":
    sys.exit(main())
