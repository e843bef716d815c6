"""What carries pages: the adapter to Falcon, templates, masking, jobs, streams."""
