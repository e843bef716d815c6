"""Finds invisible characters in a text (Unicode TR 36, 3).

They make different names look the same, and hide one name in another. Some scripts need them, to
join letters, to allow a line break or to select a glyph; there they are allowed (UAX 31, 2.3;
UTS 37; UTS 51, 1.4.3).
"""

import regex

# Control, format, private-use and unassigned characters, line and paragraph separators,
# Default_Ignorable_Code_Point (UAX 44), and two symbols with a blank glyph.
_INVISIBLE = regex.compile(
    r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}" + "\u2800\U0001d159]"
)
_JOINING = r"[\p{scx=Arab}\p{scx=Syrc}\p{scx=Nkoo}\p{scx=Adlm}\p{scx=Mong}]"
_UNSPACED = r"[\p{scx=Khmr}\p{scx=Laoo}\p{scx=Mymr}\p{scx=Thai}]"
_PICTURE = r"\p{Extended_Pictographic}"
_NEEDED = regex.compile(
    "|".join(
        (
            rf"(?<={_JOINING})[\u200c\u200d](?={_JOINING})",
            r"(?<=\p{ccc=9})[\u200c\u200d]",  # after a virama
            r"\u200d(?=\p{ccc=9})",
            rf"(?<={_UNSPACED})\u200b(?={_UNSPACED})",
            r"(?<=\p{scx=Mong})[\u180b-\u180f]",
            r"(?<=\p{scx=Hani})[\ufe00-\ufe02\U000e0100-\U000e01ef]",
            rf"(?<={_PICTURE})\ufe0f|(?<=[0-9#*])\ufe0f(?=\u20e3)",
            rf"(?<={_PICTURE}[\p{{Emoji_Modifier}}\ufe0f]?)\u200d(?={_PICTURE})",
        )
    )
)


def first_invisible(text: str) -> str:
    """Return the first invisible character that no script needs there, such as `U+200B`.

    Args:
        text: any text.

    Returns:
        Empty if there is none.
    """
    needed = {found.start() for found in _NEEDED.finditer(text)}
    for found in _INVISIBLE.finditer(text):
        if found.start() not in needed:
            return f"U+{ord(found[0]):04X}"
    return ""
