"""Dead letters and what waits on the retry ladder: looked through and put right."""
