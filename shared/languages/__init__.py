"""Translated texts for customers and businesses, one folder per language."""
