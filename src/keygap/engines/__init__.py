"""Extraction: its plan, the function that extracts one part, engines, and the driver."""
