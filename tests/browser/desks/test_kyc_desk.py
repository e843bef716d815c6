"""The KYC desk with more applications than a page holds, decided on one after the other."""

import pytest
from playwright.sync_api import expect

from services.ops.console.pages.kyc.desk import AT_ONCE
from tests.browser.arrange import audited, width_of
from tests.integration.arrange import account, until

LONG = "Kettle" * 33  # 198 letters without a place to break


@pytest.fixture(scope="module")
def services():
    return {"ops", "kyc", "secrets", "audit", "relay"}


@pytest.fixture(scope="module")
def businesses(running):
    with running.session() as session:
        return [
            account(session, status="pending", company_name=f"Shop {number:03}")
            for number in range(AT_ONCE + 5)
        ]


def titles(page):
    return [each.split("\n")[0] for each in page.locator(".card h2").all_inner_texts()]


def test_every_application_is_on_a_page_and_is_found(page, businesses):
    page.goto("/kyc")
    assert titles(page) == [one.company_name for one in businesses[:AT_ONCE]]
    expect(page.locator(".pages")).to_contain_text(f"{len(businesses)} in all")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".card")).to_have_count(5)
    assert titles(page) == [one.company_name for one in businesses[AT_ONCE:]]
    expect(page.get_by_role("link", name="Next")).to_have_count(0)
    page.locator("#words").fill(businesses[7].email)
    page.locator("#words").press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert titles(page) == [businesses[7].company_name]
    page.locator("#words").fill("")
    page.locator("#sort").select_option("newest")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".card")).to_have_count(AT_ONCE)
    assert titles(page)[0] == businesses[-1].company_name


def test_after_a_decision_comes_the_next_one_of_the_same_list(page, running):
    with running.session() as session:
        first, second, third = (
            account(session, status="pending", company_name=f"Spoon {number}")
            for number in range(3)
        )
    page.goto("/kyc?words=spoon&sort=company")
    page.locator(f"#account-{second.id}").get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.locator(".card h2")).to_have_count(3)
    assert titles(page) == ["Spoon 0", "Spoon 1", "Spoon 2"]
    page.locator(f"#account-{second.id}").get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve Spoon 1").click()
    expect(page.locator(f"#account-{third.id} h2 a")).to_be_focused()
    assert titles(page) == ["Spoon 0", "Spoon 2"]
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    page.keyboard.press("k")
    expect(page.locator(f"#account-{first.id} h2 a")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator(f"#account-{third.id} h2 a")).to_be_focused()
    # The last of the list is followed by what was passed over.
    page.locator(f"#account-{third.id}").get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve Spoon 2").click()
    expect(page.locator(f"#account-{first.id} h2 a")).to_be_focused()


def test_what_was_answered_with_yes_cannot_be_answered_with_no_beside_it(page, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Slow Spoon")
    page.goto("/kyc?words=slow")
    page.locator(f"#account-{business.id}").get_by_role("button", name="Approve").click()
    yes = page.get_by_role("button", name="Approve Slow Spoon")
    expect(yes).to_be_visible()
    # Behind the page's own script; it is read on the next page, as nothing can be asked meanwhile.
    page.evaluate(
        "document.addEventListener('submit', () => setTimeout(() => sessionStorage.setItem("
        "'off', [...document.querySelectorAll('main button')].map((one) => one.disabled))))"
    )
    yes.click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    assert page.evaluate("sessionStorage.getItem('off')") == "true,true"


def test_a_number_used_twice_is_pointed_out_before_it_is_approved(page, running):
    with running.session() as session:
        account(session, status="approved", company_name="Blue Ladle", number="RC 8-8")
        business = account(session, status="pending", company_name="Red Ladle", number="rc88")
    page.goto("/kyc?words=ladle")
    card = page.locator(f"#account-{business.id}")
    expect(card.locator("[data-same]")).to_have_text("Blue Ladle (approved)")
    card.get_by_role("button", name="Approve").click()
    expect(page.locator("main")).to_contain_text("Blue Ladle (approved)")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_name_of_200_letters_makes_no_page_wider(page, running, width):
    with running.session() as session:
        account(session, status="approved", company_name=f"{LONG}-other", number="RC 9-9")
        business = account(session, status="pending", company_name=LONG, number="rc99")
    page.set_viewport_size({"width": width, "height": 800})
    for path in (f"/kyc?words={LONG}", f"/accounts/{business.id}", "/audit"):
        page.goto(path)
        assert width_of(page) <= width, path
    page.goto(f"/kyc?words={business.email}")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("input[name=sure]")).to_be_attached()
    assert width_of(page) <= width


def test_a_question_goes_to_the_business_and_a_note_to_nobody_outside(page, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Tin Ladle")
    page.goto("/kyc?words=tin")
    card = page.locator(f"#account-{business.id}")
    card.get_by_label("Note, which operators alone see").fill(f"Telephoned <b>twice</b> {LONG}")
    card.get_by_role("button", name="Keep a note").click()
    expect(page.locator("main")).to_contain_text("It can be neither changed nor removed.")
    page.get_by_role("button", name="Keep the note").click()
    expect(card.locator("[data-note]")).to_contain_text("Telephoned <b>twice</b>")
    expect(card.locator("[data-note]")).to_contain_text("ada")
    page.set_viewport_size({"width": 390, "height": 800})
    assert width_of(page) <= 390
    page.set_viewport_size({"width": 1280, "height": 800})
    card.get_by_role("button", name="Ask").click()  # a question has words
    expect(page.get_by_role("heading", level=1)).to_have_text("KYC applications")
    card.get_by_label("Question or reason").fill("Which register?")
    card.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Ask Tin Ladle").click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is incomplete")
    page.goto("/kyc?status=incomplete&words=tin")
    expect(card).to_contain_text("Which register?")
    expect(card.locator("[data-note]")).to_contain_text("Telephoned")
    card.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve Tin Ladle").click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    until(lambda: audited(running, "ops.kyc_note_added", "ada"), "the note is audited")
