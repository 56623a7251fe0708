"""Ways to notify people and programs, each declared once in a module of its own."""
