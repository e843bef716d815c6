"""The HTTP side of a service: routes as data over plain handlers, and one adapter to Falcon."""
