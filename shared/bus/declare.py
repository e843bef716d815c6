"""`python -m shared.bus.declare`: declare the topology and stop. A deployment's own step."""

from shared.bus import topology
from shared.bus.connect import connect
from shared.config import settings


def main() -> None:
    """Declare the topology on the broker of `AMQP_URL`."""
    with connect(settings().amqp_url, timeout=10) as connection:
        connection.ensure_connection(max_retries=10, interval_start=1, interval_max=5)
        topology.declare(connection)


if __name__ == "__main__":
    main()
