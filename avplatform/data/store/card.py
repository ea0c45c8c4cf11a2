"""The card (README.md) of a data folder."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from avplatform.data.store.schema import DataSpec, Manifest
from avplatform.hub_cards.descriptions import segment_words, task_text
from avplatform.hub_cards.render import PLACEHOLDER, metadata_text, render
from avplatform.models.contracts import FeatureSpec


def render_dataset_card(manifest: Manifest | dict[str, Any], repo_id: str | None = None) -> str:
    """Return README.md of a store: what it holds, per split and per clip, and where it comes from.

    Args:
        manifest: the store's manifest, or the content of its dataset.json.
        repo_id: the repository from which the card's example loads the store.
    """
    data = dataclasses.asdict(manifest) if isinstance(manifest, Manifest) else manifest
    fields = dict(data["spec"])
    spec = DataSpec(**{**fields, "features": FeatureSpec(**fields["features"])})
    return _dataset_card(
        spec, data["splits"], checksum=data["checksum"], dtype=data.get("dtype"), repo_id=repo_id
    )


def card_of_spec(spec: DataSpec) -> str:
    """Return README.md of a dataset that is not yet written, without counts and checksum."""
    return _dataset_card(spec, {})


def _dataset_card(
    spec: DataSpec,
    splits: dict[str, Any],
    *,
    checksum: str | None = None,
    dtype: str | None = None,
    repo_id: str | None = None,
) -> str:
    provenance = dict(spec.provenance)
    defects, left_out = provenance.pop("defects", []), provenance.pop("left_out", None)
    kinds = {
        name: spec.label_dtypes.get(name, dtype or "float16 or float32") for name in spec.shapes()
    }
    tags = ["avplatform", "audio-visual", spec.task, *(["synthetic"] if spec.synthetic else [])]
    metadata: dict[str, Any] = {"pretty_name": spec.name, "tags": tags}
    if splits:  # so that datasets.load_dataset finds them
        files = [{"split": name, "path": f"{name}-*.parquet"} for name in splits]
        metadata["configs"] = [{"config_name": "default", "data_files": files}]
    return render(
        "dataset_card.md.jinja",
        metadata=metadata_text(metadata),
        spec=spec,
        task_title=task_text(spec.task).title,
        unit=segment_words(spec.segment_seconds),
        splits=[
            (
                name,
                f"{info['rows']:,}",
                len(info["shards"]),
                f"{sum(shard['bytes'] for shard in info['shards']):,}",
            )
            for name, info in splits.items()
        ],
        example_split=next(iter(splits), "train"),
        checksum=checksum,
        columns=[
            (name, kinds[name], list(shape) or "one number")
            for name, shape in spec.shapes().items()
        ],
        provenance=json.dumps(provenance, indent=2, ensure_ascii=False),
        defects=defects,
        left_out=left_out,
        label_splits=spec.label_splits,
        source_terms="importer" in provenance
        and "the terms of the dataset's source hold for this copy too.",
        repo_id=repo_id or PLACEHOLDER,
    )
