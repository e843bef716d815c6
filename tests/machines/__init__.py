"""Whole machines in containers: `make test-matrix` (matrix.py), on bare Debian (images.py)."""
