"""The journal, the stream of all messages of the last seven days: reading and replaying it."""
