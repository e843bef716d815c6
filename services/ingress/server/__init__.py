"""The gunicorn worker, its settings, and what probes ask."""
