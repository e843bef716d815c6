"""What each email says, as data: from a fact, in the words of a language."""
