"""What became of each webhook request, and how its account sees it."""
