"""One experiment from file to report."""
