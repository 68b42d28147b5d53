"""Move image vectors towards text vectors: maps that are fitted, and applied while a model runs."""
