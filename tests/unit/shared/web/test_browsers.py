import pytest

from shared.web.browsers import browser

WEBKIT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (WEBKIT + "Chrome/142.0.0.0 Safari/537.36", "Chrome"),
        (WEBKIT + "HeadlessChrome/142.0.0.0 Safari/537.36", "Chrome"),
        (WEBKIT + "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "Edge"),
        (WEBKIT + "Version/18.1 Safari/605.1.15", "Safari"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox"),
        ("curl/8.5.0", "curl"),
        ("<script>", "an unknown browser"),
        ("", "an unknown browser"),
    ],
)
def test_a_browser_is_called_by_its_name(client, name):
    assert browser(client) == name
