"""The tools of operators and ops staff: the `fellow` command."""
