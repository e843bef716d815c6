"""The ops console: pages over what services.ops can do, for people who are signed in."""
