"""`fellow account|customer|kyc|limit|secrets|send|trail`: about one business or order."""
