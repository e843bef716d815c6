"""`fellow account|customer|kyc|limit|secrets|send|suppressions|trail`: one business or order."""
