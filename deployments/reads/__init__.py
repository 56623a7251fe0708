"""What is read of deployments: frozen dataclasses, counted when they are asked for."""
