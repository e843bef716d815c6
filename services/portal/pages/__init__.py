"""Pages of the portal: they call the API and show the answers."""
