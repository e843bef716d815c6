"""Locks: whose number is which, and how long a change of the schema waits for one."""
