"""`fellow doctor`: whether a system is in order, part by part."""
