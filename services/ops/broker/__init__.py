"""Working at a queue: one tool at a time, looking without disturbing, copying with confirms."""
