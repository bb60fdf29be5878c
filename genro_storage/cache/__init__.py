"""What is remembered of remote backends: blocks and entries."""
