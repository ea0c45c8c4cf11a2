"""The adapter of listed events: labels of any classes for features that were extracted before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.official_files import Annotations, defect_lines
from avplatform.data.adapters.plan import ClipPlan, LeftOut
from avplatform.data.adapters.table.events import names_of
from avplatform.data.adapters.table.features import open_features
from avplatform.data.adapters.table.labels import EventLabels
from avplatform.data.adapters.table.options import DEFAULT_TASK, TableOptions, check_events
from avplatform.data.adapters.table.readers import read_events, read_names
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.tasks.registry import TASKS


class TableAdapter(DatasetAdapter):
    """Events that a user lists, of any classes; see docs/own_data.md."""

    name = "table"
    title = "a list of events"
    task = ""
    classes = ()
    features = FeatureSpec()
    Options = TableOptions

    def plan(self, options: Any) -> TablePlan:
        """Read the events, and find the features of their videos."""
        return TablePlan(options)

    def check_options(self, options: Any) -> None:
        """Raise UsageError where events are missing, or an option has an impossible value."""
        if not options.events:
            raise UsageError("--events is missing; give the table of events")
        if options.annotations is not None:
            raise UsageError("--annotations is for official files; give --events alone")
        if options.task is not None and options.task not in TASKS:
            raise UsageError(f"--task is '{options.task}'; choose from {', '.join(TASKS)}")
        check_events(options)


class TablePlan(ClipPlan):
    """The plan of an import of listed events."""

    def __init__(self, options: Any) -> None:
        folder = expanded(options.source)
        events, _ = read_events(options.events, separator=options.separator)
        named = [*events, *read_names(options.listed)]
        features = open_features(
            folder,
            listed={name for event in named for name in names_of(event.video)},
            segments=options.segments,
            segment=options.segment,
        )
        task = options.task or features.task or DEFAULT_TASK
        before = {name: video.split for name, video in features.videos.items()}
        kept = options.split is None and len(set(before.values())) > 1
        labels = EventLabels(
            replace(options, segment=features.segment),
            videos=list(features.videos),
            task=task,
            segments=features.segments,
            split=options.split,
            fixed=before if kept else None,
        )
        spec = DataSpec(
            name=options.name or Path(options.out).name,
            task=task,
            features=features.features,
            synthetic=features.synthetic,
            **labels.spec,
        )
        self._found, self._bad = features, dict[str, BadFeature]()
        self._video_of: dict[str, str] = {}
        clip_ids, splits, columns = self._clips(labels)
        found = Annotations(
            folder=folder,
            clip_ids=clip_ids,
            splits={name: np.array(rows) for name, rows in splits.items()},
            labels=columns,
            defects=labels.notes,
        )
        super().__init__(spec, folder, found, self._load)
        self.sources = {**labels.provenance(), **features.provenance}
        self.fingerprint.append(self.sources)
        self.left_out = [
            LeftOut(clip_id, str(folder), "is not in the list of events")
            for name in labels.table.unlisted
            for clip_id in features.videos[name].ids
        ]
        self.remarks = [
            *defect_lines(labels.notes, "the report"),
            *labels.remarks,
            *labels.missing_classes(),
        ]

    def _clips(
        self, labels: EventLabels
    ) -> tuple[list[str], dict[str, list[int]], dict[str, np.ndarray]]:
        """Return the ids, the rows of each split, and the labels of all clips of listed videos.

        A video whose events do not fit is among them, and is left out when it is read; so is a
        listed video that has no features.
        """
        ids: list[str] = []
        splits: dict[str, list[int]] = {}
        found: list[dict[str, np.ndarray]] = []
        shapes, kinds = labels.spec["labels"], labels.spec["label_dtypes"]
        nothing = {name: np.zeros(shapes[name], kinds[name]) for name in shapes}

        def add(split: str, video: str, names: Sequence[str], rows: list[Any]) -> None:
            splits.setdefault(split, []).extend(range(len(ids), len(ids) + len(names)))
            ids.extend(names)
            found.extend(rows)
            self._video_of.update(dict.fromkeys(names, video))

        for name, video in self._found.videos.items():
            if name not in labels.table.videos:
                continue
            try:
                rows = labels.labels(name, video.windows, duration=video.duration)
            except DataError as error:
                rows = [nothing] * len(video.ids)
                self._bad |= dict.fromkeys(video.ids, _placed(str(error), labels.files))
            add(labels.splits[name], name, video.ids, rows)
        for text in labels.table.unknown:
            name = text.partition("there is no video '")[2].partition("'")[0]
            add(next(iter(splits)), name, [name], [nothing])
            self._bad[name] = _placed(text, labels.files)
        columns = {name: np.stack([row[name] for row in found]) for name in shapes}
        return ids, splits, columns

    def _load(self, clip_id: str) -> dict[str, np.ndarray]:
        if clip_id in self._bad:
            raise self._bad[clip_id]
        return self._found.load(self._video_of[clip_id], clip_id)


def _placed(text: str, files: Sequence[str]) -> BadFeature:
    """Return the reason why a clip is left out, with the list of events as its file."""
    file = next((file for file in files if text.startswith(f"{file}, ")), None)
    error = BadFeature(text if file is None else text.removeprefix(f"{file}, "))
    error.filename = file  # type: ignore[attr-defined]
    return error
