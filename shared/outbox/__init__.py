"""The transactional outbox: facts are written beside the rows they tell of, then relayed."""
