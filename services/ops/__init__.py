"""The operator's tools: the `fellow` command."""
