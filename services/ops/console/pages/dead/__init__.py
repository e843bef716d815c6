"""The dead-letter desk."""
