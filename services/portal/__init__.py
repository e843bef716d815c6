"""The portal: web pages for businesses and for their customers."""
