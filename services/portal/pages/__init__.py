"""The pages: they ask the API and show what it says."""
