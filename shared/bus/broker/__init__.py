"""The broker itself: connections to it, what is declared there, and what its errors mean."""
