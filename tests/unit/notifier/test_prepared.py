"""An email about an order is what the contents and the layout make of its fact, prepared or not."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from services.notifier.composing import CONTENTS
from services.notifier.contents import orders, prepared, rendering
from services.notifier.contents.content import Setting
from shared.bus.contract import events
from shared.bus.contract.events import TrackingStatus
from shared.ids import new_id
from shared.languages import time_zones
from shared.languages.language import CODES, language

ORDER_FACTS = tuple(type_ for type_ in CONTENTS if issubclass(type_, events._OrderFact))

TEXT = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "two\nlines",
        "\n",
        "a\r\nb",
        "<b>&amp;</b>",
        '"quoted"',
        "Zoë {name}",
        "{}",
        "%s",
        "=_",
        "\x00",
    ]
)
DAYS = st.just(UNSET) | st.dates(date(2026, 1, 1), date(2027, 1, 1))


@st.composite
def facts(draw):
    type_ = draw(st.sampled_from(ORDER_FACTS))
    values = {
        "order_id": new_id(),
        "account_id": new_id(),
        "company_name": draw(TEXT),
        "customer_name": draw(TEXT),
        "customer_email": "zoe@shop.example",
        "item_summary": draw(TEXT | st.text(min_size=85, max_size=120)),
        "tracking_status": draw(st.sampled_from(TrackingStatus)),
        "order_number": draw(st.just(UNSET) | TEXT),
        "carrier": draw(st.just(UNSET) | TEXT),
        "tracking_number": draw(st.just(UNSET) | TEXT),
        "tracking_url": draw(st.just(UNSET) | st.just("https://carrier.example/?a=1&b='2'")),
        "estimated_delivery": draw(DAYS),
    }
    own = {
        "address": draw(TEXT),
        "previous_status": TrackingStatus.PENDING,
        "note": draw(TEXT),
        "reason": draw(TEXT),
    }
    return type_(**values, **{k: v for k, v in own.items() if k in type_.__struct_fields__})


@st.composite
def settings_of(draw, fact):
    return Setting(
        say=language(draw(st.sampled_from(CODES))),
        zone=time_zones.zone(draw(st.sampled_from(["", "Africa/Lagos"]))),
        public_url="https://fellow.example",
        reply_to=draw(st.sampled_from(["", "shop@shop.example"])),
        tracking_page=draw(st.sampled_from(["", "https://portal.example/track/a&b"])),
        unsubscribe_url=draw(st.sampled_from(["", "https://fellow.example/?token=a'b"])),
        excerpt=orders.excerpt(fact),
    )


@given(st.data())
def test_it_equals_a_direct_rendering(data):
    fact = data.draw(facts())
    setting = data.draw(settings_of(fact))
    _, content_of = CONTENTS[type(fact)]
    whole = rendering.parts(fact, content_of, setting)
    # The first makes it ready for the next, which is of another customer.
    other = data.draw(facts().filter(lambda one: type(one) is type(fact)))
    for told, in_setting in ((fact, setting), (other, setting._replace(excerpt="else"))):
        prepared.parts(told, content_of, in_setting)
    assert prepared.parts(fact, content_of, setting) == whole


@pytest.mark.parametrize("type_", ORDER_FACTS)
def test_orders_that_differ_only_in_values_are_prepared_once(type_):
    """Else it would cost twice what it spares."""
    prepared._prepared.cache_clear()
    values = dict.fromkeys(type_.__struct_fields__, "x") | {
        "tracking_status": TrackingStatus.PENDING,
        "estimated_delivery": UNSET,
    }
    setting = Setting(language("en"), time_zones.zone(""), "https://fellow.example")
    _, content_of = CONTENTS[type_]
    for number in range(5):
        own = {
            name: f"{name} {number}"
            for name in type_.__struct_fields__
            if name in prepared._OF_ORDER
        }
        prepared.parts(type_(**values | own), content_of, setting._replace(excerpt=str(number)))
    assert prepared._prepared.cache_info().currsize == 1
