"""Places that hold files, behind one protocol."""
