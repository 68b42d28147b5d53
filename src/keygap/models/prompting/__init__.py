"""From the pieces of a prompt to model inputs with a label on every token."""
