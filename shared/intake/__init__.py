"""What senders say of orders, before it is a message: a body, and a file of them."""
