"""The speed suite. `make bench` runs it; it takes about a minute, and asserts nothing."""
