"""Our own words in what is stored of a shop's order, said in the language of its business.

The ingress, which asks nobody for that language, writes them in English into the texts of the
order, beside what the shop says in its own.
"""

from shared.languages.language import DEFAULT, Language, language

_OURS = "common.shop."
_english = language(DEFAULT)
_KEYS = {text: key for key, text in _english.texts.items() if key.startswith(_OURS)}
_TOTAL = _english(f"{_OURS}total", total="")
_MORE = ", "


def our_word(name: str, **values: str) -> str:
    """One of them, as it is stored.

    Args:
        name: which, in `[shop]` of `common.toml`.
        values: what stands in its places.
    """
    return _english(_OURS + name, **values)


def said(say: Language, stored: str) -> str:
    """A text of a shop's order, in a language where it is a word of ours.

    Args:
        say: the language.
        stored: a name, an address, a reason, or what was ordered.
    """
    if say.code == DEFAULT:
        return stored
    if stored in _KEYS:
        return say(_KEYS[stored])
    named, found, total = stored.rpartition(f"\n{_TOTAL}")
    if found:
        return said(say, named) + "\n" + say(f"{_OURS}total", total=total)
    most, found, more = stored.rpartition(_MORE)
    return most + _MORE + say(_KEYS[more]) if found and more == our_word("more") else stored
