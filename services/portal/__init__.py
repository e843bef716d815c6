"""The portal: the businesses' own pages, and those of their customers."""
