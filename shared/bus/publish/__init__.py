"""Publish messages with pipelined confirms."""
