"""Ways to damage the files of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

EXTRACTED = (
    "extraction.yaml",
    "manifest.json",
    "samples.parquet",
    "tokens/part-00001.parquet",
    "thumbnails/part-00001.parquet",
    "vectors/site=k_proj/layer=0/part-00000.parquet",
)
COMPUTED = (
    "gap.csv", "jsd.csv", "shape.csv", "dimensions.csv", "notes.txt", "measurement.yaml",
    "statistics.parquet", "projection.parquet", "answers.csv", "accuracy.csv",
)  # fmt: skip
Damage = Callable[[Path], object]


def flipped(at: float) -> Damage:
    """One bit, at a share of the file."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(int(at * len(data)), len(data) - 1)] ^= 1
        path.write_bytes(bytes(data))

    return damage


def cut(keep: float) -> Damage:
    """All that follows a share of the file is lost."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])

    return damage


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def not_utf_8(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00caf\xe9\n" + path.read_bytes())


def another_schema(path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), path)


# Damage that any file can have.
OF_ANY: dict[str, Damage] = {
    "deleted": Path.unlink,
    "empty": cut(0.0),
    "half": cut(0.5),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte longer": longer,
    "zeros": zeros,
    "not UTF-8": not_utf_8,
    "a folder": a_folder,
    **{f"a bit at {at}": flipped(at) for at in (0.0, 0.3, 0.7, 1.0)},
}


def _edited(name: str, old: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return damage


def _swapped(name: str, other: str) -> Damage:
    def damage(root: Path) -> None:
        one, two = (root / name).read_bytes(), (root / other).read_bytes()
        (root / name).write_bytes(two)
        (root / other).write_bytes(one)

    return damage


def _copied(source: str, target: str) -> Damage:
    def damage(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return damage


def _foreign(name: str) -> Damage:
    """From another run, whose folder is beside this one."""
    return lambda root: shutil.copy(root.parent / "other" / name, root / name)


def _edited_manifest(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**manifest, "n_samples": 99}))


def _schema(name: str) -> Damage:
    return lambda root: another_schema(root / name)


def _zeroed_vectors(root: Path) -> None:
    """The same rows and schema with other numbers, written as keygap writes them."""
    path = root / "vectors/site=k_proj/layer=0/part-00000.parquet"
    table = pq.read_table(path, partitioning=None)
    zero = pa.array([[0.0] * 16] * len(table), table.schema.field("vector").type)
    changed = table.set_column(table.schema.get_field_index("vector"), "vector", zero)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def _tokens_are_a_file(root: Path) -> None:
    shutil.rmtree(root / "tokens")
    (root / "tokens").write_text("x")


FIRST, SECOND = "tokens/part-00000.parquet", "tokens/part-00001.parquet"
LAYER = "vectors/site=k_proj/layer=0"
# Damage to the extraction as a whole: what is done, and the file that is named.
OF_EXTRACTION: dict[str, tuple[Damage, str]] = {
    "tokens swapped": (_swapped(FIRST, SECOND), FIRST),
    "vectors swapped": (
        _swapped(f"{LAYER}/part-00000.parquet", f"{LAYER}/part-00001.parquet"),
        f"{LAYER}/part-00000.parquet",
    ),
    "a part twice": (_copied(FIRST, SECOND), SECOND),
    "a part more": (_copied(FIRST, "tokens/part-00002.parquet"), "tokens/part-00002.parquet"),
    "a file more": (_copied(FIRST, "tokens/mine.parquet"), "tokens/mine.parquet"),
    "a layer more": (
        _copied(f"{LAYER}/part-00000.parquet", "vectors/site=k_proj/layer=1/part-00000.parquet"),
        "layer=1/part-00000.parquet",
    ),
    "tokens of another run": (_foreign(SECOND), SECOND),
    "vectors of another run": (_foreign(f"{LAYER}/part-00000.parquet"), "layer=0/part-00000"),
    "samples of another run": (_foreign("samples.parquet"), "samples.parquet"),
    "manifest of another run": (_foreign("manifest.json"), "manifest.json"),
    "checksums of another run": (_foreign("checksums.sha256"), ""),
    "tokens of another schema": (_schema(FIRST), FIRST),
    "samples of another schema": (_schema("samples.parquet"), "samples.parquet"),
    "other vectors": (_zeroed_vectors, "layer=0/part-00000.parquet"),
    "edited seed": (_edited("extraction.yaml", "seed: 0", "seed: 1"), "extraction.yaml"),
    "edited manifest": (_edited_manifest, "manifest.json"),
    "edited checksum": (_edited("checksums.sha256", "0", "1"), "checksums.sha256"),
    "a checksum less": (
        lambda root: (root / "checksums.sha256").write_text(
            "".join((root / "checksums.sha256").read_text().splitlines(keepends=True)[1:])
        ),
        "checksums.sha256",
    ),
    "no tokens": (lambda root: shutil.rmtree(root / "tokens"), FIRST),
    "no vectors": (lambda root: shutil.rmtree(root / "vectors"), f"{LAYER}/part-00000.parquet"),
    "tokens is a file": (_tokens_are_a_file, FIRST),
}
# Damage to what is computed, besides that of any file.
OF_RESULTS: dict[str, tuple[Damage, str]] = {
    "an edited number": (_edited("gap.csv", "0.", "9."), "gap.csv"),
    "a broken line": (_edited("gap.csv", "\n", '\n"broken,,\n'), "gap.csv"),
    "edited settings": (_edited("measurement.yaml", "seed: 0", "seed: 7"), "measurement.yaml"),
    "edited accuracy": (_edited("accuracy.csv", "0.5", "0.9"), "accuracy.csv"),
    "table of another run": (_foreign("gap.csv"), "gap.csv"),
    "projection of another run": (_foreign("projection.parquet"), "projection.parquet"),
    "statistics of another schema": (_schema("statistics.parquet"), "statistics.parquet"),
}
