"""Sign-in, sessions, and the second factor of the signed-in user."""
