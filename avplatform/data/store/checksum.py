"""The checksum of a store's contents, which does not depend on blocks, shards or row groups."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.data.store.schema import DataSpec, Manifest


class ContentDigest:
    """Computes the checksum from clips that are added block by block.

    The clips of a split must come in their order; the splits may come in any order. One sha256 per
    split and column is taken over the column's bytes (for `clip_id`: each id and a line feed, in
    UTF-8). The checksum is the sha256 of the lines "split column digest", with the splits sorted by
    name and the columns in the order of the schema.
    """

    def __init__(self, spec: DataSpec) -> None:
        self._columns = ["row", "clip_id", *spec.shapes()]
        self._digests: dict[str, dict[str, Any]] = {}

    def update(self, split: str, table: pa.Table) -> None:
        """Add the next clips of a split."""
        if split not in self._digests:
            self._digests[split] = {name: hashlib.sha256() for name in self._columns}
        for name, digest in self._digests[split].items():
            for chunk in table.column(name).chunks:
                if name == "clip_id":
                    digest.update("".join(f"{clip_id}\n" for clip_id in chunk.to_pylist()).encode())
                else:
                    flat = chunk.flatten() if pa.types.is_fixed_size_list(chunk.type) else chunk
                    digest.update(flat.to_numpy(zero_copy_only=True).data)

    def hexdigest(self) -> str:
        """Return the checksum of all clips added so far."""
        lines = [
            f"{split} {name} {digest.hexdigest()}\n"
            for split in sorted(self._digests)
            for name, digest in self._digests[split].items()
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def content_checksum(store: str | Path, manifest: Manifest) -> str:
    """Compute a store's checksum from its shards, one row group at a time.

    It equals `manifest.checksum` from version 2 on; version 1 defined the checksum differently.
    """
    digest = ContentDigest(manifest.spec)
    for split, info in manifest.splits.items():
        for shard in info.shards:
            digest_shard(digest, split, Path(store) / shard.file)
    return digest.hexdigest()


def digest_shard(digest: ContentDigest, split: str, file: Path) -> list[int]:
    """Add a shard's clips to a digest and return their rows."""
    rows: list[int] = []
    with pq.ParquetFile(arrow_path(file)) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            digest.update(split, table)
            rows += table.column("row").to_pylist()
    return rows
