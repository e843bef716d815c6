"""The ops console: web pages of services.ops for signed-in operators."""
