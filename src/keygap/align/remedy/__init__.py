"""The remedy: the smallest change of keys or attention that makes a model follow a hint less."""
