"""What is particular to the orders of shops: which wait to be placed, which had another id."""
