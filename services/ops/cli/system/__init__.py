"""`fellow audit|doctor|keys|retention|users`: about the system and its operators."""
