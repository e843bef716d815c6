"""The bus: topology and messages as data, one publisher, one consumer runtime."""

from shared.bus.broker import decoding

# Before anybody reads: whoever uses py-amqp here does it by a module of this package.
decoding.install()
