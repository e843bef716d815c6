"""Names that may stand before our address in a customer's mailbox.

There the name is all that many mail programs show. So nothing in it may be invisible, turn the
writing round, look like an address, pass for other letters, or be our own name (Unicode TR 36, 2
and 3; UTS 39, 5).
"""

import unicodedata

from shared.product import NAME

LONGEST = 60  # characters; what is longer is cut in most lists of mails
_MOST_MARKS = 2  # over or under one letter
_SEPARATE = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Scripts with letters that look like Latin ones; no name needs both in one word."""


def normalised(name: str) -> str:
    """A name in the form that it is kept and judged in: NFKC, with single spaces.

    Letters that are others in another shape (full-width, mathematical) become those.
    """
    return " ".join(word for word in unicodedata.normalize("NFKC", name).split(" ") if word)


def fault(name: str) -> str | None:
    """What is wrong with a name, a sentence; None when nothing is.

    Args:
        name: from `normalised`, and not empty.
    """
    if len(name) > LONGEST:
        return f"It has more than {LONGEST} characters."
    if not all(map(_is_seen, name)):
        return "It has characters that are not seen, or that turn the direction of writing."
    if not any(c.isalnum() for c in name):
        return "It has no letter and no digit."
    if set('@<>"\\') & set(name):
        return 'It may not have any of @ < > " and \\: it must not look like an address.'
    if _has_too_many_marks(name):
        return f"It has more than {_MOST_MARKS} marks over one letter."
    if any(map(_mixes_scripts, name.split())):
        return "A word in it mixes Latin letters with others that look like them."
    if "".join(NAME.casefold().split()) in "".join(name.casefold().split()):
        return f"It may not have {NAME} in it, which is our own name."
    return None


def _is_seen(character: str) -> bool:
    # Other (control, format, private, unassigned) and separators; a plain space is one that is.
    return character == " " or unicodedata.category(character)[0] not in "CZ"


def _has_too_many_marks(name: str) -> bool:
    in_a_row = 0
    for character in name:
        in_a_row = in_a_row + 1 if unicodedata.category(character).startswith("M") else 0
        if in_a_row > _MOST_MARKS:
            return True
    return False


def _mixes_scripts(word: str) -> bool:
    scripts = {unicodedata.name(c, "").partition(" ")[0] for c in word if c.isalpha()}
    return len(scripts & {"LATIN", *_SEPARATE}) > 1
