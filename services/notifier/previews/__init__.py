"""What customers would get, shown to the business that they would get it of."""
