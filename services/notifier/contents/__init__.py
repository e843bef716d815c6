"""The content of each email as data, from a fact and a language."""
