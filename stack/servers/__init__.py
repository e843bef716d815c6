"""RabbitMQ and PostgreSQL for `make run` and the tests: in containers, or of the machine."""
