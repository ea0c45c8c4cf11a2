"""Files that say which video labels hold in which modality: refined labels and noise ratios.

A clip's label says that a class occurs, not whether it is heard or seen. Refined labels drop a
class from one modality of a clip; noise ratios say, for a class and a modality, how often it should
be dropped. Both files are JSON. The classes are named, so that neither file can be read for another
list of classes by mistake.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.files import write_atomic
from avplatform.models.paths import expanded
from avplatform.tasks.avvp.metrics import STREAMS
from avplatform.tasks.batch import TrainingClips

REFINED, RATIOS = "avplatform refined labels", "avplatform noise ratios"
VERSION = 1


@dataclass(frozen=True)
class RefinedLabels:
    """Which video labels of clips hold in which modality.

    Shape: keep_audio and keep_visual bool [N, C], False where a label is dropped; a class that a
    clip does not have is True. `made_by` says how they were made.
    """

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    keep_audio: np.ndarray
    keep_visual: np.ndarray
    made_by: dict[str, Any] = field(default_factory=dict)

    def dropped(self) -> dict[str, np.ndarray]:
        """Return the number of dropped labels by modality, each [C]."""
        return {"audio": (~self.keep_audio).sum(axis=0), "visual": (~self.keep_visual).sum(axis=0)}

    def save(self, path: str | Path) -> None:
        """Write the file, completely or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        names = np.array(self.classes, dtype=object)
        clips = {
            clip_id: {
                "audio": names[~self.keep_audio[i]].tolist(),
                "visual": names[~self.keep_visual[i]].tolist(),
            }
            for i, clip_id in enumerate(self.clip_ids)
        }
        # One clip a line: a file of 10,000 clips can be read and compared.
        lines = ",\n".join(f"  {_json(clip_id)}: {_json(gone)}" for clip_id, gone in clips.items())
        head = {"format": REFINED, "version": VERSION, "made_by": self.made_by}
        head["classes"] = list(self.classes)
        text = _json(head)[:-1] + ', "dropped": {\n' + lines + "\n}}\n"
        _write(path, text)

    @classmethod
    def read(cls, path: str | Path, classes: Sequence[str]) -> RefinedLabels:
        """Read a file that `save` wrote, for some or all of its classes, in the order of `classes`.

        Raises:
            DataError: the file is missing or damaged, lacks one of the classes, or drops a class
                that it does not list.
        """
        content = _read(path, REFINED)
        theirs, dropped = content.get("classes"), content.get("dropped")
        if (
            not isinstance(theirs, list)
            or not all(isinstance(name, str) for name in theirs)
            or not isinstance(dropped, dict)
        ):
            raise DataError(f"{path} has no list of classes or no dropped labels; write it again")
        own = _columns(path, theirs, classes)
        keep = {name: np.ones((len(dropped), len(theirs)), dtype=bool) for name in STREAMS}
        place = {name: i for i, name in enumerate(theirs)}
        for row, (clip_id, gone) in enumerate(dropped.items()):
            for modality in STREAMS:
                names = gone.get(modality, []) if isinstance(gone, dict) else None
                if not isinstance(names, list) or not all(
                    isinstance(name, str) and name in place for name in names
                ):
                    raise DataError(
                        f"{path}: clip '{clip_id}' drops {names!r} from {modality}; it must be a "
                        "list of the file's classes"
                    )
                keep[modality][row, [place[name] for name in names]] = False
        return cls(
            classes=tuple(classes),
            clip_ids=tuple(dropped),
            keep_audio=keep["audio"][:, own],
            keep_visual=keep["visual"][:, own],
            made_by=content.get("made_by") or {},
        )

    def rows(
        self, clip_ids: Sequence[str], *, path: str | Path = "the refined labels"
    ) -> list[int]:
        """Return the rows of clips in the order of `clip_ids`.

        Raises:
            DataError: a clip is missing; says how many are.
        """
        place = self._places
        if missing := [clip_id for clip_id in clip_ids if clip_id not in place]:
            raise DataError(
                f"{path} has no refined labels of {counted(len(missing), 'clip')} of "
                f"{len(clip_ids)}, '{missing[0]}' first; it was made for other clips: make it "
                "again on the data of this run"
            )
        return [place[clip_id] for clip_id in clip_ids]

    def masks(
        self, clip_ids: Sequence[str], *, like: Tensor, path: str | Path = "the refined labels"
    ) -> dict[str, Tensor]:
        """Return the masks "keep_audio" and "keep_visual" [B, C] of clips; raises as `rows`."""
        rows = self.rows(clip_ids, path=path)
        pairs = (("keep_audio", self.keep_audio), ("keep_visual", self.keep_visual))
        return {name: torch.from_numpy(keep[rows]).to(like) for name, keep in pairs}

    def check(self, clips: TrainingClips, *, path: str | Path) -> list[str]:
        """Return what to say of these labels before a run; see `Task.check_training_clips`."""
        said = _check_data(path, self.made_by, clips, "its classes and its clips were compared")
        self.rows(clips.ids(), path=path)
        return said

    @cached_property
    def _places(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}


@dataclass(frozen=True)
class NoiseRatios:
    """The share of the labels of each class that does not hold, by modality.

    Shape: audio and visual float64 [C]; NaN for a class of which nothing is known.
    """

    classes: tuple[str, ...]
    audio: np.ndarray
    visual: np.ndarray
    made_by: dict[str, Any] = field(default_factory=dict)

    def both(self) -> Tensor:
        """Return the ratios of audio and visual, float64 [2, C]."""
        return torch.from_numpy(np.stack([self.audio, self.visual]))

    def check(
        self, clips: TrainingClips, *, path: str | Path, rounding: str = "truncate"
    ) -> list[str]:
        """Return what to say of these ratios before a run; see `Task.check_training_clips`.

        Args:
            clips: the clips of the run.
            path: the file of the ratios, for messages.
            rounding: how the number of labels that a batch loses is rounded.
        """
        said = _check_data(path, self.made_by, clips, "its classes were compared")
        most = max(0.0, *(np.nan_to_num(values).max() for values in (self.audio, self.visual)))
        if not most:
            said.append(
                f"{path} holds no ratio above 0, so denoising drops no label; make it again with "
                "a trained model, or set task_config.denoise to off"
            )
        elif rounding == "truncate" and most * clips.batch_size < 1:
            said.append(
                f"denoising drops no label: the largest ratio in {path} is {most:g}, which is less "
                f"than one label in a batch of {clips.batch_size}; raise --batch-size, or set "
                "task_config.denoise_rounding to carry"
            )
        return said

    def save(self, path: str | Path) -> None:
        """Write the file, completely or not at all; an unknown ratio becomes null.

        Raises:
            DataError: the file cannot be written.
        """
        content: dict[str, Any] = {"format": RATIOS, "version": VERSION, "made_by": self.made_by}
        for name in STREAMS:
            values = getattr(self, name).tolist()
            content[name] = {
                c: None if np.isnan(v) else v for c, v in zip(self.classes, values, strict=True)
            }
        _write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str | Path, classes: Sequence[str]) -> NoiseRatios:
        """Read a file that `save` wrote, or the published `noise_ratios.npz`.

        The published file names no classes: it holds two arrays, "audio" and "visual", in LLP's
        order, and only their length can be checked.

        Raises:
            DataError: the file is missing or damaged, has other classes, or a ratio is not in
                [0, 1].
        """
        if zipfile.is_zipfile(expanded(path)):
            found, made_by = _published_ratios(path, classes), {"file": str(path)}
        else:
            content = _read(path, RATIOS)
            tables = [content.get(name) or {} for name in STREAMS]
            if not all(tables) or not all(isinstance(table, dict) for table in tables):
                raise DataError(f"{path} has no ratios of audio and visual; write it again")
            found = [_values(path, table, classes) for table in tables]
            made_by = content.get("made_by") or {}
        for name, values in zip(STREAMS, found, strict=True):
            bad = np.flatnonzero(~(np.isnan(values) | ((values >= 0) & (values <= 1))))
            if len(bad):
                raise DataError(
                    f"{path}: the {name} ratio of '{classes[bad[0]]}' is {values[bad[0]]:g}; "
                    "a ratio lies between 0 and 1"
                )
        audio, visual = found
        return cls(tuple(classes), audio, visual, made_by)


def read_ratios(path: str | None, classes: Sequence[str]) -> NoiseRatios:
    """Read the noise ratios that the option `noise_ratios` names.

    Raises:
        UsageError: it names no file.
        DataError: as `NoiseRatios.read`.
    """
    if path is None:
        raise UsageError(
            "task_config.denoise drops labels by noise ratios; make a file with `avplatform "
            "pseudo-label noise-ratio` and give it as task_config.noise_ratios, "
            "or set denoise to off"
        )
    return NoiseRatios.read(path, classes)


def _check_data(
    path: str | Path, made_by: Mapping[str, Any], clips: TrainingClips, checked: str
) -> list[str]:
    """Compare the data that a file was made on with those of a run; return a warning or nothing.

    Raises:
        DataError: they are other data.
    """
    found = made_by.get("data_checksum")
    if found is None:
        return [f"{path} does not say which data it was made on; only {checked} with the data"]
    if found != clips.checksum:
        raise DataError(
            f"{path} was made on other data, '{made_by.get('data')}' (checksum "
            f"{str(found)[:12]}), than this run trains on, '{clips.data}' "
            f"({clips.checksum[:12]}); make it again on the data of this run, with a model that "
            "was trained on them. If both hold the same clips and labels, delete data_checksum "
            "from made_by in the file"
        )
    return []


def _published_ratios(path: str | Path, classes: Sequence[str]) -> list[np.ndarray]:
    try:
        with np.load(expanded(path), allow_pickle=False) as arrays:
            found = [np.asarray(arrays[name], dtype=np.float64) for name in STREAMS]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is not a file of noise ratios ({error}); it must hold the arrays audio and "
            "visual, without pickled objects"
        ) from None
    for values in found:
        if values.shape != (len(classes),):
            raise DataError(
                f"{path} holds arrays of shape {list(values.shape)}, but there are "
                f"{counted(len(classes), 'class')}; it was made for another list of classes"
            )
    return found


def _values(path: str | Path, table: Mapping[str, Any], classes: Sequence[str]) -> np.ndarray:
    places = _columns(path, list(table), classes)
    values = [list(table.values())[i] for i in places]
    known = [v for v in values if v is not None]
    wrong = [v for v in known if isinstance(v, bool) or not isinstance(v, (int, float))]
    if wrong:
        raise DataError(f"{path} has a ratio {wrong[0]!r}; it must be a number or null")
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _columns(path: str | Path, theirs: Sequence[Any], classes: Sequence[str]) -> list[int]:
    """Return where each of our classes stands in the classes of a file."""
    if missing := [name for name in classes if name not in theirs]:
        raise DataError(
            f"{path} knows nothing of {counted(len(missing), 'class')} of this run, "
            f"'{missing[0]}' first; it was made for another list of classes"
        )
    return [list(theirs).index(name) for name in classes]


def _read(path: str | Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(expanded(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); give a file of {kind}") from None
    if not isinstance(content, dict) or content.get("format") != kind:
        raise DataError(f"{path} is not a file of {kind}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path} has version {content.get('version')}; this avplatform reads {VERSION}"
        )
    if not isinstance(content.get("made_by") or {}, dict):
        raise DataError(f"{path}: made_by is {content['made_by']!r}; it must be an object")
    return content


def _write(path: str | Path, text: str) -> None:
    file = expanded(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
