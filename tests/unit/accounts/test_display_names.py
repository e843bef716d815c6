"""Names before our address: people's own go through, and those that pass for others do not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.accounts.email_sender.display_names import fault, normalised


@pytest.mark.parametrize(
    "name",
    [
        "Kettle & Co",
        "O'Neil's Käserei",
        "Kettle.example",
        "Čaj – čajovna",
        "Чайная лавка",
        "Τσάι",
        "茶屋",
        "متجر الشاي",
        "7-Eleven (Lagos)",
        "Chá Ọ̀ṣun",
        "Shop A/S Чай",  # each word of one script
    ],
)
def test_a_name_of_a_shop(name):
    assert fault(normalised(name)) is None


@pytest.mark.parametrize(
    "name",
    [
        "Kettle\r\nBcc: all@shop.example",
        "Kettle\0",
        "\u202elttek",  # right-to-left override
        "Kettle\u2066",
        "Ket\u200btle",  # zero-width space
        "Kettle\u00ad",
        "\u2028Kettle",
        "Kettle\ue000",
        "support@bank.example",
        "Kettle <help@kettle.example>",
        'Kettle" <x',
        "Ｐay＠Pal",  # full-width
        "P\u0430ypal",  # a Cyrillic letter
        "\u0391mazon",  # a Greek one
        "Order Fellow",
        "ORDER  FELLOW support",
        "𝐎𝐫𝐝𝐞𝐫 𝐅𝐞𝐥𝐥𝐨𝐰",  # mathematical letters
        "e\u0301\u0301\u0301\u0301",
        "---",
        "x" * 61,
    ],
)
def test_a_name_that_deceives(name):
    assert fault(normalised(name))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
def test_what_is_taken_is_seen_is_one_line_and_stays_as_it_is(text):
    name = normalised(text)
    if name and fault(name) is None:
        assert name.isprintable()
        assert "@" not in name
        assert normalised(name) == name
        assert not {"Cf", "Cc", "Zl", "Zp"} & {unicodedata.category(c) for c in name}
