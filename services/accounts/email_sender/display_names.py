"""Validation of display names before our email address.

Many mail programs show the name alone. So it must have no invisible or direction-changing
characters, must not look like an address or imitate other letters, and must not contain our own
name (Unicode TR 36, 2 and 3; UTS 39, 5).
"""

import unicodedata

import regex

from shared.product import NAME
from shared.validation.visible_text import first_invisible

LONGEST = 60  # characters; most mail programs cut longer ones
_MOST_MARKS = 2  # combining marks on one letter
# Scripts in modern use (UAX 31, tables 5 and 7, and Mongolian): those that may be mixed in a word,
# and those that may not (UTS 39, 5.2, "highly restrictive").
_WITH_LATIN = ("Latn Hani Hira Kana", "Latn Hani Bopo", "Latn Hani Hang")
_ALONE = """
    Adlm Arab Armn Bali Bamu Batk Beng Cakm Cans Cham Cher Cyrl Deva Ethi Geor Grek Gujr Guru
    Hebr Hmnp Java Kali Khmr Knda Lana Laoo Lepc Limb Lisu Mand Mlym Mong Mtei Mymr Newa Nkoo
    Olck Orya Osge Plrd Rohg Saur Sinh Sund Sylo Syrc Tale Talu Taml Tavt Telu Tfng Thaa Thai
    Tibt Vaii Wcho Yiii
"""
_WORD = regex.compile(
    "|".join(
        "[[^\\p{L}\\p{M}]\\p{scx=Zyyy}\\p{scx=Zinh}"
        + "".join(rf"\p{{scx={script}}}" for script in scripts.split())
        + "]*"
        for scripts in (*_WITH_LATIN, *_ALONE.split())
    ),
    regex.VERSION1,
)


def normalised(name: str) -> str:
    """Return a name in the form that is stored and validated: NFKC with single spaces.

    NFKC replaces full-width and mathematical letters by the plain ones.
    """
    return " ".join(filter(None, regex.split(r"\p{Zs}", unicodedata.normalize("NFKC", name))))


def fault(name: str) -> str | None:
    """Return a sentence about the first fault of a name; None if it has none.

    Args:
        name: a normalised name that is not empty.
    """
    if len(name) > LONGEST:
        return f"It has more than {LONGEST} characters."
    if character := first_invisible(name):
        return f"It has a character that is not seen, {character}: take that out."
    if not any(c.isalnum() for c in name):
        return "It has no letter and no digit."
    if set('@<>"\\') & set(name):
        return 'It may not have any of @ < > " and \\: it must not look like an address.'
    if _has_too_many_marks(name):
        return f"It has more than {_MOST_MARKS} marks over one letter."
    if not all(_WORD.fullmatch(word) for word in name.split(" ")):
        return "A word in it mixes letters of scripts that are not written together."
    if _bare(NAME) in _bare(name):
        return f"It may not have {NAME} in it, which is our own name."
    return None


def _bare(name: str) -> str:
    """Return the letters and digits of a name, in lower case and without marks."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name).casefold()))


def _has_too_many_marks(name: str) -> bool:
    in_a_row = 0
    for character in name:
        in_a_row = in_a_row + 1 if unicodedata.category(character).startswith("M") else 0
        if in_a_row > _MOST_MARKS:
            return True
    return False
