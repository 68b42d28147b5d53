"""Which patch of which image a position shows."""
