"""Signing in, and what belongs to whoever is signed in: sessions, a second factor."""
