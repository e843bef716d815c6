"""Dead letters and the retry ladder: reading, replaying, editing, discarding."""
