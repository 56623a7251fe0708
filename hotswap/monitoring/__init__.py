"""What the server says of itself: metrics for Prometheus, and how its parts fare."""
