"""Previews of emails, for the business that they would come from or go to."""
