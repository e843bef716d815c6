"""`fellow doctor`: checks each part of a system."""
