"""What a model answers, and whether its answers follow the image or the text."""
