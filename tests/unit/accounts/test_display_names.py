"""Display names: real names are accepted, deceptive ones are refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.accounts.email_sender.display_names import fault, normalised

KNOWN = ("LATIN", "CYRILLIC", "GREEK", "DIGIT", "SPACE")
"""Texts in which no joiner is needed."""


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
        "株式会社ABCカフェー",
        "카페ABC茶",
        "ქეთლი",
        "ⵜⵉⴼⵉⵏⴰⵖ",
        "ဆိုင်",
        "می\u200cخواهم",  # letters that do not join
        "ශ්\u200dරී ලංකා",  # letters that do
        "☕\ufe0f Kettle",
        "№ 1 Čaj™",
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
        "Ket\u034ftle",  # a joiner of graphemes
        "Kettle\u0378",  # nothing yet
        "\u3164",  # a filler
        "Kettle\u3164Shop",
        "Kettle\U000e0100",  # selects a variant
        "Kettle\ufe0f",
        "Ke\u200dttle",
        "茶\u200d屋",
        "\u2800",  # no dots, in Braille
        "Kettle\u2800Shop",
        "Kettle\U0001d159",  # no note
        "ꓑayꓑal",  # Lisu
        "PayᏢal",  # Cherokee
        "ｶﾌｪЧай",
        "\U00013441Kettle",
        "Order-Fellow",
        "O.r.d.e.r_Fellow",
        "Órdėr Fellow",
        "Or\u034fder Fellow",
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
def test_an_accepted_name_is_visible_one_line_and_stable(text):
    name = normalised(text)
    if name and fault(name) is None:
        assert "@" not in name
        assert normalised(name) == name
        for before, character, behind in zip(f" {name[:-1]}", name, f"{name[1:]} ", strict=True):
            if character in "\u200b\u200c\u200d":
                assert not any(unicodedata.name(c).startswith(KNOWN) for c in (before, behind))
            elif unicodedata.category(character) != "Cn":  # or newer than this Python
                assert character.isprintable()
