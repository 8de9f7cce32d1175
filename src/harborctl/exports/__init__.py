"""Tables → files that can be loaded again."""
