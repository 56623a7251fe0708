"""A temperature sensor's firmware."""
