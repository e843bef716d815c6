"""The table of error codes is complete."""

import re

import pytest

from services.ingress.app import OPERATIONS
from services.ingress.docs import openapi
from services.ingress.docs.error_codes import CODES
from shared.http.mount import _FALCON_CODES
from stack.folders import ROOT

STATUSES = openapi.statuses_of(OPERATIONS)


def answered():
    """Every code with its statuses: of the routes, of Falcon's own errors, of broken HTTP."""
    found = {(code, status) for o in OPERATIONS for status, code, _ in openapi.errors_of(o)}
    found |= {(code, status) for status, code in _FALCON_CODES.items()}
    statuses = {}
    for code, status in sorted(found):
        statuses.setdefault(code, []).append(status)
    return statuses


def test_every_code_is_in_the_table_and_no_other():
    assert set(CODES) == set(STATUSES)
    assert {code: list(statuses) for code, statuses in STATUSES.items()} == answered()


def test_every_code_has_a_cause_and_a_cure_in_whole_sentences():
    for code, row in CODES.items():
        for text in (row.cause, row.cure):
            assert re.fullmatch(r"[A-Z`].*\.", text), code


def test_passing_errors_have_a_retryable_status():
    for code, row in CODES.items():
        if row.is_passing:
            assert set(STATUSES[code]) <= {404, 408, 429, 500, 503}, code
        else:
            assert not {429, 503} & set(STATUSES[code]), code


def test_the_paths_that_a_cure_names_are_there():
    known = {f"{o.method} {o.path}" for o in OPERATIONS}
    named = {
        (code, path)
        for code, row in CODES.items()
        for path in re.findall(r"`((?:GET|POST|PUT|DELETE) [^`]+)`", row.cure)
    }
    assert named
    assert {(code, path) for code, path in named if path not in known} == set()


@pytest.mark.parametrize("code", ["overloaded", "unavailable"])
def test_no_remedy_claims_that_nothing_was_recorded_when_that_is_unknown(code):
    assert "Nothing was recorded" not in CODES[code].cure
    assert "not known" in CODES[code].cure
    assert "Idempotency-Key" in CODES[code].cure


def test_no_sentence_has_a_size_that_is_a_setting():
    sentences = [sentence for o in OPERATIONS for _, _, sentence in openapi.errors_of(o)]
    assert not [sentence for sentence in sentences if re.search(r"\b\d{5,} bytes", sentence)]


def test_the_guide_says_of_a_key_what_the_table_says():
    guide = (ROOT / "docs/sending.md").read_text()
    (row,) = re.findall(r"\| 409 `idempotency_key_in_use` \|.*", guide)
    assert "Retry-After" not in row
    assert "separate key" in row
    assert "separate key" in CODES["idempotency_key_in_use"].cure
