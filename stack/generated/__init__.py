"""What is written by programs: contracts, lock files, the list of components."""
