"""The numbers of PostgreSQL's advisory locks. They are one space for all of a database, so each
number is here, and nowhere else but in migrations. A lock that is named goes by `hashtextextended`;
that of a queue by SHA-256 (`queue_lock.lock_key`), of an account's secrets by the id's random end.
"""

MIGRATIONS = 7_034_221
"""Held while the schema changes."""
REQUEST_LOG_PARTITIONS = 7_034_222
"""Held while the request log gets or loses a day; by functions of the database (0003, 0012)."""
AUDIT_CHAIN = 7_034_223
"""Held while rows are added to the audit log, so that two writers do not continue the same row."""
REFUSED_ADDRESSES = 7_034_224
"""Held while businesses are told which addresses were refused."""
