"""The product's name and version.

Constants instead of package metadata, because the image contains the code without an installed
package. A test compares pyproject.toml and the Dockerfile with them.
"""

NAME = "Order Fellow"
VERSION = "0.1.0"
