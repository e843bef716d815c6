"""The request log: the outcome of each webhook request, its API, and receipts."""
