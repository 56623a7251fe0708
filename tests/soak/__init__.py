"""A fleet that lives on for an hour."""
