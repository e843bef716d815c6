"""Authentication and encryption: keys, passwords, tokens and client networks."""
