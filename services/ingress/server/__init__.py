"""The gunicorn worker, its settings, and the endpoints of probes."""
