"""Named sets of faults, read from small files: what goes wrong together, ready to be brought about."""
