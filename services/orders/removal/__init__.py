"""Orders that were removed and whose history is still there: the rest is removed in pages.

An order's history may be of any length, so it is not removed in the order's transaction. The order
goes first: no reader shows the history of an order that is not there. Until the rest has gone the
order is not recorded again, since it would have a history with holes.
"""
