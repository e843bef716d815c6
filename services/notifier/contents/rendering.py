"""Renders both parts of an email, text and HTML, from one content."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from services.notifier.contents.content import (
    Action,
    Block,
    Code,
    Command,
    Content,
    Facts,
    Quote,
    Setting,
)
from shared.languages.language import Language

INDENT = "    "


class Parts(NamedTuple):
    """An email's subject, text part and HTML part."""

    subject: str
    text: str
    html: str


def parts(fact: Any, content_of: Callable[[Any, Setting], Content], setting: Setting) -> Parts:
    """Render the email of a fact.

    Args:
        fact: the fact.
        content_of: returns the fact's content.
        setting: what the email depends on besides the fact.
    """
    content = content_of(fact, setting)
    say = setting.say
    return Parts(content.subject, text(content, say), html(content, say))


def text(content: Content, say: Language) -> str:
    """Render the text part."""
    parts = []
    if content.kicker:
        head = f"{content.kicker}\n{content.heading}"
        if content.steps:
            marks = "  ".join(f"[{'x' if s.is_done else ' '}] {s.name}" for s in content.steps)
            head += f"\n{content.progress}: {marks}"
        parts.append(head)
    parts += [_as_text(block, say) for block in content.blocks]
    footer = "\n".join(content.footer)
    if content.leave_url:
        footer += f" {content.leave[1]}\n{content.leave_url}"
    return "\n\n".join(parts) + f"\n\n--\n{footer}\n"


def html(content: Content, say: Language) -> str:
    """Render the HTML part in ASCII: other characters as references, so 7bit transfer suffices."""
    return in_ascii(_layout().render(content=content, code=say.code))


def in_ascii(markup: str) -> str:
    """Return HTML with references for non-ASCII characters."""
    return markup if markup.isascii() else markup.encode("ascii", "xmlcharrefreplace").decode()


def _as_text(block: Block, say: Language) -> str:
    if isinstance(block, Facts):
        return _table(block, say)
    if isinstance(block, Quote):
        return _indented(block.text)
    if isinstance(block, Command):
        return "\n".join(INDENT + line for line in block.lines)
    if isinstance(block, Action):
        return f"{say('common.label', label=block.text_label)} {block.url}"
    return block.sentence if isinstance(block, Code) else block.text


def _indented(words: str) -> str:
    return INDENT + words.replace("\n", f"\n{INDENT}")


def _table(facts: Facts, say: Language) -> str:
    labels = [say("common.label", label=row.label) for row in facts.rows]
    width = max(map(len, labels)) + 2
    return "\n".join(
        label.ljust(width) + row.value.replace("\n", "\n" + " " * width)
        for label, row in zip(labels, facts.rows, strict=True)
    )


@cache
def _layout() -> Template:
    environment = Environment(
        loader=PackageLoader("services.notifier"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Part of the code: checking the file for changes would cost a stat for each email.
        auto_reload=False,
    )
    return environment.get_template("layout.html")
