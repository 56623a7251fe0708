"""Requests of all kinds, drawn from the description of the API and from malice."""
