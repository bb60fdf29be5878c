"""libfuse's high-level API, through mfusepy: where there is no /dev/fuse of Linux's kind."""
