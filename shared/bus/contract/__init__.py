"""What is said: events, where they go, who may send and read them, and how they travel."""
