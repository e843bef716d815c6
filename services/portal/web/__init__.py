"""Infrastructure of the pages: API client, sessions, Falcon adapter, templates."""
