"""A customer's data: all that is held of one person, and its end."""
