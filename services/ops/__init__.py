"""The operators' tools: the `fellow` command and the web console."""
