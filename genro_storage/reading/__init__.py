"""From an open read handle down to ranges of a backend."""
