"""The console's users: passwords, rights, sessions and second factors."""
