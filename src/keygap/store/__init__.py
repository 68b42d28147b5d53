"""The vectors of an extraction on disk, with their labels: file names, schema, writer, reader."""

from keygap.store.files import write_bytes, write_table, write_text
from keygap.store.reader import LabelledVectors, Store
from keygap.store.results import save_results
from keygap.store.writer import PartTables, StoreWriter, write_part

__all__ = [
    "LabelledVectors",
    "PartTables",
    "Store",
    "StoreWriter",
    "save_results",
    "write_bytes",
    "write_part",
    "write_table",
    "write_text",
]
