"""Fixtures of a file whose tests share a broker and a database, and so whatever runs on them.

It imports both. The queues are empty when a test begins; in the database is what others left there.
"""

import pytest
from kombu import Connection

from tests.vhosts import purge


@pytest.fixture
def amqp_url(module_amqp_url: str) -> str:
    with Connection(module_amqp_url) as connection:
        purge(connection)
    return module_amqp_url


@pytest.fixture
def database_url(module_database_url: str) -> str:
    return module_database_url
