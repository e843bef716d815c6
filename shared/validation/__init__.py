"""Validation of values: readable faults, and corrections of unambiguous ones."""
