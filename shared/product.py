"""Which Order Fellow this is.

A constant and no package's metadata: the image has the code, and no package is installed there. A
test holds pyproject.toml and the Dockerfile to it.
"""

NAME = "Order Fellow"
VERSION = "0.1.0"
