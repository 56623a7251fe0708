"""Verbs of the firmware app."""
