"""Rehearsals: what a message would do, asked for, tried and told."""
