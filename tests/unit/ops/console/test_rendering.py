"""What only the console draws."""

import re

from services.ops.console.web import rendering


def test_a_sparkline_reaches_from_the_first_to_the_last_minute():
    html = rendering.sparkline([None, 0.0, 5.0, 10.0])
    points = re.search(r'points="(.*?)"', html)[1].split()
    assert points == ["40.0,23.0", "80.0,12.5", "120.0,2.0"]
