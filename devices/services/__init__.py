"""Verbs of the devices app."""
