"""Generated documents do not depend on whether Python strips docstrings' indentation."""

import msgspec
import pytest

from shared.docstrings import schema_components, summary

BEFORE_3_13 = "A fact.\n\n    With more\n    about it.\n    "
SINCE_3_13 = "A fact.\n\nWith more\nabout it.\n"


@pytest.mark.parametrize("docstring", [BEFORE_3_13, SINCE_3_13])
def test_a_description(docstring):
    fact = msgspec.defstruct("Fact", [("number", int)], namespace={"__doc__": docstring})
    _, schemas = schema_components([fact])
    assert schemas["Fact"]["description"] == "A fact.\n\nWith more\nabout it."
    assert summary(fact) == "A fact."


def test_without_a_docstring():
    assert summary(msgspec.defstruct("Bare", [])) == ""
