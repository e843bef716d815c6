"""Invisible characters are found, and real names are accepted."""

import pytest

from shared.validation.visible_text import first_invisible


@pytest.mark.parametrize(
    "name",
    [
        "Kettle & Co. KG",
        "Société\u00a0Générale",
        "株式会社\u3000山田",
        "辻\U000e0101商店",  # a glyph variant
        "র\u200d্যাংগস",
        "ශ්\u200dරී ලංකා",
        "فروشگاه\u200cها",
        "מכולת של ג׳ו",
        "ហាង\u200bកាហ្វេ",
        "ᠮᠣᠩᠭᠣᠯ\u180eᠠ",
        "ร้านกาแฟ",
        "ʻOhana",
        "Ọ̀ṣun",
        "\U0001f468\u200d\U0001f373 Kitchen",
        "☕\ufe0f 1\ufe0f\u20e3",
    ],
)
def test_a_name_of_a_company_in_any_script(name):
    assert first_invisible(name) == ""


@pytest.mark.parametrize(
    ("name", "character"),
    [
        ("Kettle\u0085Co", "U+0085"),
        ("Kettle\u202eoC", "U+202E"),
        ("Kettle\u200bCo", "U+200B"),
        ("Ket\u00adtle", "U+00AD"),
        ("\ufeffKettle", "U+FEFF"),
        ("Kettle\u2028Co", "U+2028"),
        ("Ket\u034ftle", "U+034F"),
        ("\u3164", "U+3164"),
        ("\uffa0", "U+FFA0"),
        ("Kettle\U000e0041", "U+E0041"),
        ("Kettle\U000e0101", "U+E0101"),
        ("Kettle\u180b", "U+180B"),
        ("Kettle\ufe0f", "U+FE0F"),
        ("\u2800", "U+2800"),
        ("Kettle\ue000", "U+E000"),
        ("Kettle\U000e0fff", "U+E0FFF"),
    ],
)
def test_invisible_characters_are_found(name, character):
    assert first_invisible(name) == character
