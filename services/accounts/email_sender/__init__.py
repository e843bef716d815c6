"""How the emails about a business's orders name it, and where answers to them go."""
