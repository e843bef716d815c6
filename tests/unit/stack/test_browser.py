"""The browser that the demo and the portal's tests walk with: forms, cookies, what a page says."""

from urllib.parse import parse_qs

import httpx
import pytest

from stack.browser import Browser, NoFormError

PAGE = """<!doctype html><h1>Sign
  in</h1><form action="/look"><input type="hidden" name="q" value="no"></form>
<form method="post" action="/sign-in"><input type="hidden" name="form_token" value="a&amp;b">
<select><option>one<option>two</select><input name="email"><ul><li>first <b>thing</b></ul></form>"""


@pytest.fixture
def sent():
    return []


@pytest.fixture
def browser(sent):
    def answer(request):
        sent.append(request)
        if request.method == "POST":
            return httpx.Response(303, headers={"Location": "/"})
        return httpx.Response(200, text=PAGE, headers={"Set-Cookie": "session=1"})

    found = Browser("http://site.example")
    found.http = httpx.Client(
        base_url="http://site.example",
        transport=httpx.MockTransport(answer),
        follow_redirects=True,
    )
    return found


def test_a_form_goes_with_its_hidden_fields_and_the_cookie(browser, sent):
    browser.get("/")
    browser.send("/sign-in", email="it@kettle.example")
    _, posted, followed = sent
    assert parse_qs(posted.content.decode()) == {
        "form_token": ["a&b"],
        "email": ["it@kettle.example"],
    }
    assert posted.headers["cookie"] == "session=1"
    assert (followed.method, followed.url.path) == ("GET", "/")


def test_a_file_goes_beside_the_fields(browser, sent):
    browser.get("/")
    browser.send("/sign-in", files={"file": ("orders.csv", b"name")})
    assert sent[1].headers["content-type"].startswith("multipart/form-data")
    posted = sent[1].read()
    assert b'name="form_token"' in posted
    assert b'filename="orders.csv"' in posted


def test_what_a_page_says(browser):
    browser.get("/")
    assert (browser.texts("h1"), browser.texts("li")) == (["Sign in"], ["first thing"])


def test_a_form_that_is_not_there(browser):
    browser.get("/")
    with pytest.raises(NoFormError, match="/look"):
        browser.send("/look")
