"""Infrastructure of the pages: the Falcon adapter, templates, masking, jobs, streams."""
