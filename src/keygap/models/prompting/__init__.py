"""Messages in, model inputs with labels out."""
