"""A store of any number of tokens, written directly in the store's own schema, and a client."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa

from keygap.reporting.view import Explored, ViewServer
from keygap.store import PartTables, Store, StoreWriter, write_part
from keygap.store.schema import SAMPLES_SCHEMA, TOKENS_SCHEMA, vectors_schema
from store.made import IDENTITY, _thumbnails

WIDTH = 64
PATCHES, WORDS = 400, 100  # of each sample


def large_store(root: Path, samples: int, in_part: int, words: int = 5000) -> Store:
    """A run of ``k_proj`` at layer 0, with 500 tokens a sample, without a pass through a model.

    Image tokens lie apart from text along some dimensions, and all tokens vary along some others.
    The first token of all lies far from every other.
    """
    rng = np.random.default_rng(0)
    manifest = {
        "model": "made", "benchmark": "made", "connector": "none", "n_layers": 4, "heads": 4,
        "key_heads": 4, "head_dim": WIDTH // 4, "versions": {}, "n_samples": samples,
        "n_failed": 0, "failures": {},
    }  # fmt: skip
    with StoreWriter(root, IDENTITY) as writer:
        for number, first in enumerate(range(0, samples, in_part)):
            part = _part(rng, range(first, min(first + in_part, samples)), words)
            writer.commit(number, part.samples, write_part(root, number, part))
        writer.write_manifest({**manifest, "checksums": writer.checksums})
    return Store(root)


def _part(rng: np.random.Generator, samples: range, words: int) -> PartTables:
    names = [f"s{n:06}" for n in samples]
    each = PATCHES + WORDS
    count = each * len(names)
    position = np.tile(np.arange(each), len(names))
    image = position < PATCHES
    word = rng.zipf(1.3, count) % words
    vectors = rng.normal(size=(count, WIDTH)).astype(np.float32)
    vectors[image, :16] += 3
    vectors[:, 16:24] += 2 * rng.normal(size=(count, 1))
    if samples.start == 0:
        vectors[0] = 60
    labels = {
        "sample_id": np.repeat(names, each),
        "position": position,
        "token_id": word,
        "token": np.where(image, "<image>", np.char.add("word", word.astype(str))),
        "modality": np.where(image, "image", "text"),
        "role": np.where(image, "", "question"),
        "image": np.where(image, 0, -1),
        "frame": np.full(count, -1),
        "patch_row": np.where(image, position // 20, -1),
        "patch_column": np.where(image, position % 20, -1),
    }
    where = vectors_schema(4, WIDTH // 4)
    listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    columns = [
        *(pa.array(labels[name]).cast(where.field(name).type) for name in where.names[:3]),
        pa.array(np.ones(count, dtype=bool)),
        pa.array(rng.exponential(size=count).astype(np.float32)),
        listed.cast(where.field("vector").type),
    ]
    rows = [{"sample_id": name, "subject": "x", "language": "en"} for name in names]
    tokens = [pa.array(labels[field.name]).cast(field.type) for field in TOKENS_SCHEMA]
    return PartTables(
        samples=pa.Table.from_pylist(rows, SAMPLES_SCHEMA),
        tokens=pa.table(tokens, schema=TOKENS_SCHEMA),
        vectors={("k_proj", 0): pa.table(columns, schema=where)},
        thumbnails=_thumbnails(names),
    )


@contextmanager
def served(store: Store) -> Iterator[Client]:
    """A server of a store, and somebody who asks it."""
    server = ViewServer(Explored(store))
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Client:
    """Asks a server as its page does, and in any other way."""

    def __init__(self, server: ViewServer) -> None:
        self.server = server
        self.own = {"Host": f"127.0.0.1:{server.server_port}"}

    def raw(
        self, target: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in (self.own if headers is None else headers).items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        found = response.status, response.read(), dict(response.getheaders())
        connection.close()
        return found

    def ask(self, name: str, **parameters: Any) -> dict[str, Any]:
        """An answer; asks again for as long as the server prepares it."""
        while True:
            status, body, _ = self.raw(f"/api/{name}?{urlencode(parameters)}")
            answer = json.loads(body)
            assert status == 200, answer
            if "preparing" not in answer:
                return answer
