"""Who may sign in to the console, with what rights, sessions and second factor."""
