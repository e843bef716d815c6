"""Processes of ours that start without importing anew what all of them import.

`__main__.py` is a process that has imported the libraries, has one thread and forks on request;
`forks.py` is how tests ask for it. What comes of it is a process like any other: its own id,
session, signals, files and environment; what of ours depends on any of these it imports itself.
"""
