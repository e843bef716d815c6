"""What in a text nobody sees (Unicode TR 36, 3).

It makes two names of one, and hides another's name in one's own. Yet some scripts are written with
it: it says which letters join, where a line may break, which shape of a letter is meant. There it
stays (UAX 31, 2.3; UTS 37; UTS 51, 1.4.3).
"""

import regex

# Control, format, private and unassigned characters, ends of lines and paragraphs; what is drawn as
# nothing (UAX 44, Default_Ignorable_Code_Point); two symbols whose picture is blank.
_UNSEEN = regex.compile(r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}" + "\u2800\U0001d159]")
_JOINING = r"[\p{scx=Arab}\p{scx=Syrc}\p{scx=Nkoo}\p{scx=Adlm}\p{scx=Mong}]"
_UNSPACED = r"[\p{scx=Khmr}\p{scx=Laoo}\p{scx=Mymr}\p{scx=Thai}]"
_PICTURE = r"\p{Extended_Pictographic}"
_NEEDED = regex.compile(
    "|".join(
        (
            rf"(?<={_JOINING})[\u200c\u200d](?={_JOINING})",
            r"(?<=\p{ccc=9})[\u200c\u200d]",  # behind a virama
            r"\u200d(?=\p{ccc=9})",
            rf"(?<={_UNSPACED})\u200b(?={_UNSPACED})",
            r"(?<=\p{scx=Mong})[\u180b-\u180f]",
            r"(?<=\p{scx=Hani})[\ufe00-\ufe02\U000e0100-\U000e01ef]",
            rf"(?<={_PICTURE})\ufe0f|(?<=[0-9#*])\ufe0f(?=\u20e3)",
            rf"(?<={_PICTURE}[\p{{Emoji_Modifier}}\ufe0f]?)\u200d(?={_PICTURE})",
        )
    )
)


def unseen(text: str) -> str:
    """The first character that nobody sees and no script needs there, such as `U+200B`.

    Args:
        text: whatever somebody wrote.

    Returns:
        Empty where there is none.
    """
    needed = {found.start() for found in _NEEDED.finditer(text)}
    for found in _UNSEEN.finditer(text):
        if found.start() not in needed:
            return f"U+{ord(found[0]):04X}"
    return ""
