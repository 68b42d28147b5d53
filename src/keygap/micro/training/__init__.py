"""How the embedded model's connectors are trained and judged."""
