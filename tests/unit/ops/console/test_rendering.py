"""What only the console draws."""

import json
import re

from services.ops.console.web import rendering
from stack.folders import ROOT


def test_a_sparkline_reaches_from_the_first_to_the_last_minute():
    html = rendering.sparkline([None, 0.0, 5.0, 10.0])
    points = re.search(r'points="(.*?)"', html)[1].split()
    assert points == ["40.0,23.0", "80.0,12.5", "120.0,2.0"]


def test_no_stream_is_ended_by_the_browsers_patience():
    """htmx ends each request after a minute, and a page that is paused begins none anew."""
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
