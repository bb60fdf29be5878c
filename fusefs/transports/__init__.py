"""Ways for requests to arrive: the Linux kernel, and none at all."""
