"""What a backend must pass, and tools to make one fail."""
