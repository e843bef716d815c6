"""A list of components that lacks one is not taken."""

import json

import pytest

from stack.generated import sbom

LOCK = """\
PyJWT==2.10.1 \\
    --hash=sha256:aa
kombu[redis]==5.7.0 ; python_version >= "3.11" \\
    --hash=sha256:bb
"""


@pytest.mark.parametrize(
    ("components", "code", "said"),
    [
        ([("pyjwt", "2.10.1"), ("kombu", "5.7.0")], 0, "2 components"),
        ([("pyjwt", "2.10.1")], 1, "lacks kombu 5.7.0"),
        ([("pyjwt", "2.10.0"), ("kombu", "5.7.0")], 1, "lacks pyjwt 2.10.1"),
    ],
)
def test_it_has_all_that_is_pinned(components, code, said, tmp_path, capsys):
    lock, document = tmp_path / "lock", tmp_path / "sbom"
    lock.write_text(LOCK)
    listed = [{"name": name, "version": version} for name, version in components]
    document.write_text(json.dumps({"specVersion": "1.6", "components": listed}))
    assert sbom.main(str(lock), str(document)) == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_a_lock_file_that_pins_nothing_is_none(tmp_path):
    for name in ("lock", "sbom"):
        (tmp_path / name).write_text('{"components": []}')
    assert sbom.main(str(tmp_path / "lock"), str(tmp_path / "sbom")) == 1
