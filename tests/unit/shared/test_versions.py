"""Untested server versions cause a warning."""

import re
from pathlib import Path

import pytest

from shared import versions

DEPLOYING = Path(__file__).resolve().parents[3] / "docs" / "deploying.md"


@pytest.mark.parametrize(
    ("product", "version"),
    [
        ("RabbitMQ", "3.10.8"),
        ("RabbitMQ", "3.12.1"),
        ("RabbitMQ", "4.0.5"),
        ("RabbitMQ", "4.3.6"),
        ("PostgreSQL", "15.18 (Debian 15.18-0+deb12u1)"),
        ("PostgreSQL", "16.14"),
        ("PostgreSQL", "18.6 (Debian 18.6-3)"),
    ],
)
def test_a_tested_version_has_no_warning(product, version):
    assert versions.warning(product, version) is None


@pytest.mark.parametrize(
    ("product", "version"),
    [
        ("RabbitMQ", "3.1.5"),
        ("RabbitMQ", "3.13.7"),
        ("RabbitMQ", "4.30.0"),
        ("RabbitMQ", "5.0.0"),
        ("RabbitMQ", "4.3.0"),  # without passive declares
        ("RabbitMQ", "4.2.6"),
        ("RabbitMQ", None),
        ("PostgreSQL", "14.1"),
        ("PostgreSQL", "19beta1"),
    ],
)
def test_an_untested_version_has_a_warning(product, version):
    text = versions.warning(product, version)
    assert f"{product} {version} " in text


def test_the_documents_name_the_same():
    line = next(line for line in DEPLOYING.read_text().splitlines() if "**Versions.**" in line)
    brokers, databases = re.fullmatch(r".*RabbitMQ (.+), PostgreSQL (.+)\. .*", line).groups()
    for product, named in (("RabbitMQ", brokers), ("PostgreSQL", databases)):
        assert tuple(re.split(r", | and ", named)) == versions.KNOWN[product]
