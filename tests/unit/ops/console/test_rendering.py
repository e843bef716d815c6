"""Rendering that only the console has."""

import json
import re

from services.ops.console.web import rendering
from stack.folders import ROOT


def test_a_sparkline_reaches_from_the_first_to_the_last_minute():
    html = rendering.sparkline([None, 0.0, 5.0, 10.0])
    points = re.search(r'points="(.*?)"', html)[1].split()
    assert points == ["40.0,23.0", "80.0,12.5", "120.0,2.0"]


def test_what_listens_to_htmx_runs_before_it():
    """An answer to htmx's first request may come before a later script runs."""
    for site in ("ops/console", "portal"):
        page = (ROOT / "services" / site / "templates" / "layout.html").read_text()
        scripts = re.findall(r"<script defer src=\"{{ asset\('(.*?)'\) }}", page)
        assert scripts.index("web/forms.js") < scripts.index("web/vendor/htmx.min.js"), site


def test_streams_have_no_timeout_of_htmx():
    """htmx ends each request after a minute, and a paused page starts no new one."""
    streams = [
        found
        for site in ("ops/console", "portal")
        for page in (ROOT / "services" / site / "templates").rglob("*.html")
        for found in re.findall(r"<[^>]*hx-sse:connect[^>]*>", page.read_text())
    ]
    assert streams
    for stream in streams:
        (config,) = re.findall(r"hx-config='([^']*)'", stream)
        assert json.loads(config)["timeout"] == 0
