"""The services. Each folder is one process or one part of the public HTTP app; none imports another."""
