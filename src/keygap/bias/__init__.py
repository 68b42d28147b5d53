"""Does the gap matter? What the model answers, and what its answers follow."""
