"""Pages for people: what they answer, forms, cookies, templates, static files."""
