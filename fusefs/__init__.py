"""A mounted tree over the mounts of a StorageManager."""
