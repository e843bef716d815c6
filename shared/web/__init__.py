"""Web pages: results, forms, cookies, templates, static files."""
