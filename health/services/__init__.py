"""Verbs of the health app."""
