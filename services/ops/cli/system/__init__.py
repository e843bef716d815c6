"""`fellow alerts|audit|doctor|keys|retention|users`: the system and its operators."""
