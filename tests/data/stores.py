"""Small stores for tests: their specifications, random contents, and how they are written."""

import numpy as np

from avplatform.data import DataSpec, StoreWriter
from avplatform.models.contracts import FeatureSpec


def spec_of(kind="vectors"):
    if kind == "maps":
        return DataSpec(
            name="maps",
            task="avel",
            classes=["a", "b", "background"],
            features=FeatureSpec(audio_dim=3, visual_dim=4, map_size=(2, 2)),
            labels={"segment": [5], "video": []},
            label_dtypes={"segment": "int64", "video": "int64"},
            segments=5,
            synthetic=True,
        )
    return DataSpec(
        name="vectors",
        task="avvp",
        classes=["a", "b"],
        features=FeatureSpec(audio_dim=3, visual_dim=4, motion_dim=2),
        labels={"weak": [2]},
        label_dtypes={"weak": "uint8"},
        segments=5,
        synthetic=True,
    )


def columns_of(spec, count, start=0, seed=0):
    rng = np.random.default_rng([seed, start])
    out = {
        "row": np.arange(start, start + count),
        "clip_id": [f"clip{i}" for i in range(start, start + count)],
    }
    for name, shape in spec.shapes().items():
        if name in spec.labels:
            out[name] = rng.integers(0, 2, (count, *shape))
        else:
            out[name] = rng.standard_normal((count, *shape)).astype(np.float32)
    return out


def write(path, spec, sizes, **options):
    given, start = {}, 0
    with StoreWriter(path, spec, **options) as writer:
        for split, count in sizes.items():
            given[split] = columns_of(spec, count, start)
            writer.add(split, given[split])
            start += count
    return given
