import pytest

from shared.web.browsers import browser, preferred_language

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
def test_browsers_are_named(client, name):
    assert browser(client) == name


@pytest.mark.parametrize(
    ("accept_language", "code"),
    [
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("de, en;q=0.5, fr;q=0.7", "fr"),
        ("FR", "fr"),
        ("en-GB,fr", "en"),
        ("fr;q=0, en;q=0.1", "en"),
        ("fr; q=0.2 , en ; q=0.3", "en"),
        ("fr;q=x,;,q=1,*", ""),
        ("de,*", ""),
        ("", ""),
    ],
)
def test_a_browsers_preferred_language_is_one_of_ours_or_none(accept_language, code):
    assert preferred_language(accept_language) == code
