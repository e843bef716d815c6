"""What a refused value must be, in words; and what of it can be mended without asking."""
