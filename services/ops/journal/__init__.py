"""The journal, the stream of all messages of the last seven days: read, and replayed."""
