"""Keys that are moved on purpose: maps between image and text keys, and what they change."""
