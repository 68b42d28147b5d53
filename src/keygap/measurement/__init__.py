"""Statistics x contrasts x sites x layers x heads, as tables."""
