"""Translates our own phrases in the stored texts of a shop's order.

The ingress does not look up the business's language. It stores these phrases in English, beside the
shop's own texts, and they are translated when shown.
"""

from shared.languages.language import DEFAULT, Language, language

_OURS = "common.shop."
_english = language(DEFAULT)
_KEYS = {text: key for key, text in _english.texts.items() if key.startswith(_OURS)}
_TOTAL = _english(f"{_OURS}total", total="")
_MORE = ", "


def our_word(name: str, **values: str) -> str:
    """Return a phrase in the stored form.

    Args:
        name: its key in `[shop]` of `common.toml`.
        values: of its placeholders.
    """
    return _english(_OURS + name, **values)


def translated(say: Language, stored: str) -> str:
    """Return a text of a shop's order with our phrases translated.

    Args:
        say: the language.
        stored: a name, an address, a reason, or an item summary.
    """
    if say.code == DEFAULT:
        return stored
    if stored in _KEYS:
        return say(_KEYS[stored])
    named, found, total = stored.rpartition(f"\n{_TOTAL}")
    if found:
        return translated(say, named) + "\n" + say(f"{_OURS}total", total=total)
    most, found, more = stored.rpartition(_MORE)
    return most + _MORE + say(_KEYS[more]) if found and more == our_word("more") else stored
