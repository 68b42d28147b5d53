"""Where an extraction runs: here, or on a cluster."""
