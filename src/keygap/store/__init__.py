"""The dataset on disk: schema, atomic writer, reader."""

from keygap.store.reader import Store, Vectors
from keygap.store.writer import StoreWriter, write_table, write_text

__all__ = ["Store", "StoreWriter", "Vectors", "write_table", "write_text"]
