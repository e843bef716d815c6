"""The services: each folder is a process, or a part of the public app; none imports another."""
