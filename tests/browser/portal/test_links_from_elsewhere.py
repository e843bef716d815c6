"""A link in a webmail or a chat leads to a page of ours: a browser keeps its cookies back then."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from shared.ids import new_id
from tests.browser.conftest import PASSWORD, listen
from tests.integration.arrange import PATIENCE
from tests.integration.conftest import Api

pytestmark = pytest.mark.timeout(600)
ELSEWHERE = "http://webmail.example/"


@pytest.fixture(scope="module")
def services():
    return {"ingress", "ops", "portal"}


class Console:
    """The console, and a page of it."""

    path = "/kyc"

    def __init__(self, running):
        self.url = running.url

    def fill(self, page):
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)


class Portal:
    """The portal with a business, and a page of it."""

    path = "/orders?status=PENDING"

    def __init__(self, running):
        self.url, self.email = running.portal_url, f"{new_id()}@kettle.example"
        with httpx.Client(base_url=f"{running.api_url}/api/v1/users", timeout=PATIENCE) as http:
            about = {"company_name": "Kettle & Co", "email": self.email, "password": PASSWORD}
            assert http.post("/auth/register/", json=about).status_code == 201
            code = Api(http, running.api_url, "", "", running.engine).code_for(self.email)
            proof = {"email": self.email, "otp": code}
            assert http.post("/verify-otp/", json=proof).status_code == 200

    def fill(self, page):
        page.get_by_label("Email address").fill(self.email)
        page.get_by_label("Password").fill(PASSWORD)


@pytest.fixture(scope="module", params=[Console, Portal])
def site(request, running):
    return request.param(running)


@pytest.fixture
def context(browser, site):
    opened = browser.new_context(base_url=site.url)
    yield opened
    opened.close()


def press(page):
    page.get_by_role("button", name="Sign in").click()


def follow(page, site):
    """Click on a link to a page of the site, in a page of another site."""
    link = f'<!doctype html><title>Mail</title><a href="{site.url}{site.path}">Look</a>'
    page.route(ELSEWHERE, lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto(ELSEWHERE)
    page.get_by_role("link", name="Look").click()


def is_there(page, site):
    expect(page).to_have_url(re.compile(re.escape(site.path) + "$"))
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_who_is_signed_in_lands_where_the_link_leads(context, site):
    page = context.new_page()
    complaints = listen(page)
    page.goto("/sign-in")
    site.fill(page)
    press(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    follow(page, site)
    is_there(page, site)
    page.reload()
    is_there(page, site)
    assert complaints == []


def test_who_is_not_signs_in_and_lands_there(context, site):
    page = context.new_page()
    follow(page, site)
    site.fill(page)
    press(page)
    is_there(page, site)


def test_the_form_of_another_tab_is_good_still(context, site):
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(f"/sign-in?next={site.path}")
        site.fill(page)
    for page in (first, second):
        press(page)
        is_there(page, site)
