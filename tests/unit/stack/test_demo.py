"""The demo's requests: an expired access token is renewed, and any other answer ends the story."""

import httpx
import pytest

from stack.demo import Story, StoryError

TOKENS = {"access": "fresh"}


def story(answer):
    """A story whose API is a function."""
    made = object.__new__(Story)
    made._business, made._password = "it@kettle.example", "correct horse battery"
    transport = httpx.MockTransport(answer)
    made._http = httpx.Client(base_url="http://api.example", transport=transport)
    return made


def test_an_access_token_that_expired_while_the_machine_slept_is_renewed():
    def answer(request):
        if request.url.path.endswith("/login/"):
            return httpx.Response(200, json=TOKENS)
        is_fresh = request.headers.get("Authorization") == "Bearer fresh"
        return httpx.Response(200 if is_fresh else 401, json={"secret_key": "whsk_1"})

    assert story(answer)._secret() == "whsk_1"


@pytest.mark.parametrize("status", [400, 429, 500])
def test_another_answer_ends_the_story_with_its_words(status):
    def answer(_):
        return httpx.Response(status, json={"error": "Too much at once."})

    with pytest.raises(StoryError, match=rf"answered {status}.*Too much at once"):
        story(answer)._get("/orders/1/", 200)


def test_a_secret_that_is_not_issued_yet_is_waited_for():
    assert story(lambda _: httpx.Response(404, json={"error": "None yet."}))._secret() is None
