"""Masking of personal data for users without the right to see it."""

import pytest
from markupsafe import Markup

from services.ops.console.web.masking import Given, mask
from services.ops.console.web.rendering import _environment

TEXTS = [
    ("order_received to zoe.ade+x@shop.example: sent", "order_received to •••@•••: sent"),
    ("550 <zoe@shop.example>: no such user", "550 <•••@•••>: no such user"),
    ("['zoë@büro.example', 'b@c.d']", "['•••@•••', '•••@•••']"),
    ("/find?q=zoe%40shop.example&x=1", "/find?q=•••@•••&x=1"),
    ('{"email":"zoe@shop.example"}', '{"email":"•••@•••"}'),
    # Every character that an address of ours may have before the @.
    ("to zoe.ade/kin=1&2?{x}|o'neil@shop.example: sent", "to •••@•••: sent"),
    ("/find?q=zoe%2Fade%27s%40shop.example&x=1", "/find?q=•••@•••&x=1"),
    ("orders.intake", "orders.intake"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_addresses_are_masked_anywhere_in_a_text(text, shown):
    assert mask(text, "") == shown


@pytest.mark.parametrize(
    ("value", "part", "shown"),
    [
        ("Zoë Ade", None, "•••"),
        ("", None, ""),
        (None, None, None),
        (7, None, 7),
        ("PENDING: leave it at the gate", "leave it at the gate", "PENDING: •••"),
        (["zoe@shop.example"], "", "['•••@•••']"),
        (Given("zoe@shop.example"), "", "zoe@shop.example"),
        (Markup("<b>x</b>"), "", Markup("<b>x</b>")),
    ],
)
def test_a_personal_value_is_masked_whole_or_in_part(value, part, shown):
    assert mask(value, part) == shown


@pytest.mark.parametrize(
    ("masks", "shown"), [(True, "•••@••• ••• &lt;b@c.d&gt;"), (False, "a@b.c Zoë &lt;b@c.d&gt;")]
)
def test_a_template_masks_what_it_prints(masks, shown):
    template = _environment.from_string("{{ email }} {{ name|personal }} {{ typed|given }}")
    about = {"email": "a@b.c", "name": "Zoë", "typed": "<b@c.d>"}
    assert template.render(about, masks=masks) == shown
