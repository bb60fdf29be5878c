"""The kernel's own protocol over /dev/fuse, in pure Python."""
