"""From an open write handle down to a commit on a backend."""
