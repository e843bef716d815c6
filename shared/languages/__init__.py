"""What is said to people, in each language: a folder of words a language."""
