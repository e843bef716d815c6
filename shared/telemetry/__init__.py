"""Telemetry of a process: logs, metrics, traces and heartbeats."""
