"""Joins the extracted features of the clips with their labels, as a data folder in LLP's terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avplatform.data import DataSpec, StoreWriter
from avplatform.data.adapters.llp.annotations import SEGMENTS
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.reading.source import open_data
from avplatform.data.store.card import render_dataset_card
from avplatform.models.errors import DataError, counted
from examples.real_media.plan import Plan, label_maps
from examples.real_media.sources import CLASSES as COMPOSED

NAME = "real-media"


def label_store(features: Path, plan: Plan, out: Path) -> None:
    """Write the store that training reads.

    It has LLP's 25 classes; those without a source are zero in every clip. As in LLP, training
    clips have no dense labels. Their composed timeline is stored under the names of the
    pseudo-labels, like those of a teacher without errors. So `--supervision weak` learns from clip
    labels alone, and `--supervision pseudo` from the timeline.

    Args:
        features: the store that `avplatform extract` wrote of the clips.
        plan: what is heard and seen in them.
        out: folder to make.

    Raises:
        DataError: features of other clips.
    """
    source = open_data(features, task="avvp")
    (split,) = source.splits  # extraction knows of no splits
    arrays = source.split(split)
    position = {clip_id: index for index, clip_id in enumerate(arrays.clip_ids)}
    missing = [clip.name for clip in plan.clips if clip.name not in position]
    if missing:
        raise DataError(
            f"{features} lacks {counted(len(missing), 'clip')}, such as {missing[0]}; extract again"
        )
    maps, classes = [SEGMENTS, len(CLASSES)], len(CLASSES)
    names = ("dense_audio", "dense_visual", "pseudo_audio", "pseudo_visual")
    spec = DataSpec(
        name=NAME,
        task="avvp",
        classes=list(CLASSES),
        features=source.spec.features,
        labels={"weak": [classes], **dict.fromkeys(names, maps)},
        label_dtypes=dict.fromkeys(("weak", *names), "uint8"),
        label_splits={
            name: ["train"] if name.startswith("pseudo") else ["validation", "test"]
            for name in names
        },
        segments=SEGMENTS,
        provenance={
            **source.spec.provenance,
            "composition": {
                "made_by": "examples/real_media: photographs and recordings of Debian packages, "
                "composed with known events",
                "seed": plan.seed,
                "classes_that_occur": sorted(COMPOSED),
                "pseudo_labels": "the composed timeline of the training clips",
            },
        },
    )
    columns = arrays.columns()
    with StoreWriter(out, spec, dtype=source.manifest.dtype, card=render_dataset_card) as writer:
        for row, clip in enumerate(plan.clips):
            at = position[clip.name]
            content = {name: columns[name][at : at + 1] for name in spec.feature_names}
            found = label_maps(clip)
            known = {"weak": found["weak"]}
            for stream in ("audio", "visual"):
                truth = found[f"dense_{stream}"]
                known[f"dense_{stream}"] = np.zeros_like(truth) if clip.split == "train" else truth
                known[f"pseudo_{stream}"] = truth if clip.split == "train" else np.zeros_like(truth)
            labels = {name: value[None] for name, value in known.items()}
            writer.add(
                clip.split, {"row": np.array([row]), "clip_id": [clip.name], **content, **labels}
            )
