"""Every email in a real browser, as phones and mail programs show it: it fits, and can be read."""

from datetime import date

import msgspec
import pytest
from playwright.sync_api import expect

from services.notifier.composing import compose
from services.notifier.senders import Sender
from shared.bus.contract.events import TrackingStatus
from shared.languages.language import CODES
from tests.browser.arrange import AXE
from tests.integration.arrange import received
from tests.unit.notifier.facts import FACTS

LONG = "W" * 200
TOKENS = "long-" * 39 + "enough"
PARCEL = {
    "carrier": "C" * 100,
    "tracking_number": "1" * 100,
    "tracking_url": f"https://track.carrier.example/{LONG}",
    "estimated_delivery": date(2026, 12, 3),
}
WIDTHS = (600, 390)
DARK_PAPER = "rgb(16, 17, 19)"


def facts():
    """Every email with the longest of names, and each step of an order."""
    for name, fact in FACTS.items():
        long = {"company_name": LONG}
        if name.startswith("order_"):
            long |= {"customer_name": LONG, "item_summary": LONG, "order_number": "N" * 100}
        if name == "order_received":
            long |= {"address": LONG} | PARCEL
        yield name, msgspec.structs.replace(fact, **long)
    for status in TrackingStatus:
        moved = {"tracking_status": status, "note": TOKENS, "company_name": LONG} | PARCEL
        yield f"order-{status}", msgspec.structs.replace(FACTS["order_status"], **moved)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.timeout(600)
def test_every_email_fits_and_can_be_read(browser, scheme, configure, request):
    configure(tracking_url="https://portal.example/track/")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    asked = []
    page.on("request", lambda one: asked.append(one.url))
    pictures = request.config.rootpath / ".stack" / "pictures"
    faults = []
    for code in CODES:
        for name, fact in facts():
            email = compose(received(fact), Sender("", "help@kettle.example", code))
            page.set_content(email.html)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 844})
                wide = page.evaluate("document.documentElement.scrollWidth")
                faults += [(code, name, "wide", wide)] if wide > width else []
                if pictures.is_dir():  # for people: nothing depends on it
                    picture = pictures / f"email-{name}-{code}-{width}-{scheme}.png"
                    page.screenshot(path=picture, full_page=True)
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            faults += [(code, name, paper)] if (paper == DARK_PAPER) != (scheme == "dark") else []
            page.evaluate(AXE)
            found = page.evaluate("axe.run(document)")["violations"]
            faults += [
                (code, name, one["id"], [node["target"] for node in one["nodes"]])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
    context.close()
    assert faults == []
    assert asked == []  # no image, no font, nothing that tells that it was opened


@pytest.mark.parametrize("code", CODES)
def test_the_preheader_is_first_and_not_seen(browser, code):
    context = browser.new_context()
    page = context.new_page()
    email = compose(received(FACTS["order_status"]), Sender(language=code))
    page.set_content(email.html)
    first = page.locator("body > div").first
    expect(first).to_be_hidden()
    assert first.text_content().startswith(("Out for delivery", "En cours de livraison"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    context.close()
