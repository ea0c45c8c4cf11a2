"""A model's reference bank: what it needs of its training clips to look for labels it never met.

The bank lies beside the weights. It holds a sample of the encoded training clips with their labels,
and one linear map per stream from what is encoded to the training classes, fitted on all segments
of the training split by ridge regression.

Source: the map to unseen classes follows ESZSL (Romera-Paredes and Torr, ICML 2015): seen classes
are regressed on the features, unseen ones are combinations of them by their descriptions.

Departs: the features are standardised, the targets lose their means, and the descriptions (label
embeddings) lose their mean over the known classes and have unit length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.sampling import eval_batches
from avplatform.data.store.schema import BACKGROUND
from avplatform.labels.assumed import CLIPS
from avplatform.labels.open import check_open, directions
from avplatform.models.av_model import BANK_FILE, AVModel, any_tensor
from avplatform.models.contracts import Encoding, Parse, at_least_single
from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import save_tensors, write_atomic
from avplatform.tasks.contracts import Task

FORMAT = "avplatform bank 1"
LARGEST = 4_800_000
"""Bytes that a bank may take."""
RIDGE = 5.0
"""Weight of the penalty of the ridge regression, per segment."""
TEXT_RIDGE = 1.0
"""Penalty of the map from texts to mixtures of classes."""


@dataclass(kw_only=True)
class ReferenceBank:
    """A sample of encoded training clips, and linear maps to the training classes.

    Axes: N clips, T segments, D width, C training classes without background.

    Args:
        encoded: what the decoder reads: audio, visual, fused and others by name, [N, T, ...].
        events: what training knows of the clips: stream -> [N, T, C] in [0, 1].
        linear: the scores of the linear maps on the clips: stream -> [N, T, C].
        weights: the linear maps: stream -> [D, C].
        centre: the means of what they read: stream -> [D].
        scale: its standard deviations: stream -> [D].
        about: format, classes, streams, number of clips, checksums of data and model.
    """

    encoded: dict[str, Tensor]
    events: dict[str, Tensor]
    linear: dict[str, Tensor]
    weights: dict[str, Tensor]
    centre: dict[str, Tensor]
    scale: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @torch.inference_mode()
    def make(
        cls,
        model: AVModel,
        task: Task,
        split: SplitArrays,
        *,
        clips: int = CLIPS,
        checksum: str = "",
        batch_size: int = 64,
        ridge: float = RIDGE,
        on_batch: Callable[[int], None] | None = None,
    ) -> ReferenceBank:
        """Return the bank of a model on its training split.

        Args:
            model: the model, in eval mode.
            task: the task with the classes that the model was trained on.
            split: the training clips.
            clips: the most clips that are kept; fewer if they would take more than `LARGEST`.
            checksum: the checksum of the data.
            batch_size: clips per batch.
            ridge: weight of the penalty per segment.
            on_batch: called with the number of clips after each batch.

        Raises:
            UsageError: the model or its task has no use for a bank.
        """
        rule = check_bank(model, task)
        device = any_tensor(model).device
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist()
        kept, sums = order[:clips], dict[str, _Sums]()
        rows: dict[int, dict[str, Tensor]] = {}
        wanted, reads = set(kept), _read_by(model, split)
        for indices in eval_batches(len(split), batch_size, 0, 1):
            batch = split.batch(indices).to(device)
            output = model(batch.audio, batch.visual, batch.motion)
            inputs, known = rule.encoded(output.encoding), rule.known(output.parse, batch)
            for stream, events in known.items():
                sums.setdefault(stream, _Sums()).add(inputs[stream], events)
            parts = {f"encoded.{n}": v for n, v in _parts(output.encoding, reads).items()}
            parts |= {f"events.{stream}": events for stream, events in known.items()}
            parts |= {f"inputs.{stream}": values for stream, values in inputs.items()}
            for number, index in enumerate(indices):
                if int(index) in wanted:
                    rows[int(index)] = {n: v[number].half().cpu() for n, v in parts.items()}
            if on_batch is not None:
                on_batch(len(batch))
        maps = {stream: found.solve(ridge) for stream, found in sums.items()}
        sizes = {n: 2 * v.numel() for n, v in rows[kept[0]].items() if not n.startswith("inputs")}
        each = sum(size * (1 + n.startswith("events")) for n, size in sizes.items())  # and `linear`
        fixed = sum(4 * v.numel() for found in maps.values() for v in found)
        kept = sorted(kept[: max(1, (LARGEST - fixed) // each)])
        joined = {n: torch.stack([rows[index][n] for index in kept]) for n in rows[kept[0]]}
        classes = [name for name in model.config.classes if name != BACKGROUND]
        return cls(
            encoded=_named(joined, "encoded"),
            events=_named(joined, "events"),
            linear={
                s: linear_scores(v, *maps[s]).half() for s, v in _named(joined, "inputs").items()
            },
            weights={s: found[0] for s, found in maps.items()},
            centre={s: found[1] for s, found in maps.items()},
            scale={s: found[2] for s, found in maps.items()},
            about={
                "classes": classes,
                "streams": list(maps),
                "clips": len(kept),
                "training_clips": len(split),
                "data_checksum": checksum,
                "model": fingerprint(model),
            },
        )

    def parse(self, model: AVModel, labels: Tensor) -> Parse:
        """Return what a model's decoder says of the clips with some label embeddings [U, E]."""
        like = any_tensor(model)
        parts = {name: values.to(like) for name, values in self.encoded.items()}
        streams = {n: parts.pop(n) for n in ("audio", "visual", "fused") if n in parts}
        parse: Parse = model.decoder(Encoding(**streams, aux=parts), labels.to(like))
        return parse

    def save(self, path: Path) -> Path:
        """Write the bank.

        Raises:
            DataError: the file cannot be written.
        """
        tensors = {
            f"{group}.{name}": value
            for group in ("encoded", "events", "linear", "weights", "centre", "scale")
            for name, value in getattr(self, group).items()
        }
        text = json.dumps(self.about | {"format": FORMAT}, sort_keys=True, ensure_ascii=False)
        metadata = {"about": text}  # one entry: safetensors writes several in any order
        try:
            return write_atomic(path, lambda file: save_tensors(tensors, file, metadata))
        except OSError as error:
            raise DataError(f"cannot write the bank {path}: {error.strerror}") from None

    @classmethod
    def read(cls, path: Path, model: AVModel) -> ReferenceBank:
        """Read the bank of a model.

        Raises:
            DataError: the file is damaged or no bank, or was made for another model.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("about", "{}"))
                if about.pop("format", None) != FORMAT:
                    raise DataError(f"{path} is not a bank of this version; {REMEDY}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is not a whole bank ({error}); {REMEDY}") from None
        own = [name for name in model.config.classes if name != BACKGROUND]
        if about.get("classes") != own:
            raise DataError(
                f"{path} is the bank of a model of {len(about.get('classes') or [])} other "
                f"classes, not of this one's {len(own)}; {REMEDY}"
            )
        if about.get("model") != fingerprint(model):
            raise DataError(
                f"{path} was made with other weights or label embeddings than this model's; "
                f"{REMEDY}"
            )
        groups = ("encoded", "events", "linear", "weights", "centre", "scale")
        return cls(**{group: _named(tensors, group) for group in groups}, about=about)


REMEDY = "make it again with `avplatform bank RUN`"


def read_bank(model: AVModel) -> ReferenceBank | None:
    """Return the bank beside the weights of a model, None if it has none.

    Raises:
        DataError: the bank is damaged, or was made for another model.
    """
    if model.folder is None or not (model.folder / BANK_FILE).is_file():
        return None
    return ReferenceBank.read(model.folder / BANK_FILE, model)


def check_bank(model: AVModel, task: Task) -> Any:
    """Return the rule by which the task of a model decides unseen labels.

    Raises:
        UsageError: the model cannot look for other labels, or the task has no such rule.
    """
    check_open(model)
    if (rule := task.unseen_rule()) is None:
        raise UsageError(
            f"the task {task.name} has no rule, with the options of this model, for labels that it "
            "was never trained on, so a bank would not be read"
        )
    return rule


def fingerprint(model: AVModel) -> str:
    """Return a checksum of a model's weights and label embeddings in single precision."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("companion."):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def mixture(known: Tensor, asked: Tensor) -> Tensor:
    """Return the mixtures of known classes that stand for labels that are asked for.

    It is kernel ridge regression from label embeddings to classes.

    Shape: known [C, E], asked [U, E] -> [C, U].
    """
    own, other = (values.double() for values in directions(known, asked))
    kernel = own @ own.T + TEXT_RIDGE * torch.eye(len(own), dtype=own.dtype, device=own.device)
    return torch.linalg.solve(kernel, own @ other.T).float()


def linear_scores(inputs: Tensor, weights: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return the scores of a linear map: inputs [..., D] -> [..., C]."""
    return ((inputs.float() - centre) / scale) @ weights


class _Sums:
    """Sums over segments for ridge regression, in double precision."""

    def __init__(self) -> None:
        self.total = 0
        self.first: list[Tensor] = []

    def add(self, inputs: Tensor, events: Tensor) -> None:
        """Add segments: inputs [B, T, D] and events [B, T, C]."""
        x, y = (values.flatten(0, 1).double().cpu() for values in (inputs, events))
        new = [x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y]
        self.first = [a + b for a, b in zip(self.first, new, strict=True)] if self.first else new
        self.total += len(x)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights [D, C], means [D] and deviations [D]."""
        x, y, xx, xy = (values / self.total for values in self.first)
        covariance, cross = xx - torch.outer(x, x), xy - torch.outer(x, y)
        scale = covariance.diagonal().clamp(min=0).sqrt() + 1e-6
        covariance = covariance / torch.outer(scale, scale)
        covariance += ridge * torch.eye(len(x), dtype=x.dtype)
        weights = torch.linalg.solve(covariance, cross / scale[:, None])
        return weights.float(), x.float(), scale.float()


class _Recorder(dict[str, Tensor]):
    """A dictionary that notes which of its values are read."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__(values)
        self.read = set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)


def _read_by(model: AVModel, split: SplitArrays) -> set[str]:
    """Return the names of the encoder's by-products that the decoder reads."""
    batch = split.batch([0]).to(any_tensor(model).device)
    encoding = model(batch.audio, batch.visual, batch.motion).encoding
    recorder = _Recorder(encoding.aux)
    streams = dict(audio=encoding.audio, visual=encoding.visual, fused=encoding.fused)
    model.decoder(Encoding(**streams, aux=recorder), model.label_embeddings)
    return {name for name in recorder.read if name in recorder}


def _parts(encoding: Encoding, reads: set[str]) -> dict[str, Tensor]:
    """Return what the decoder reads of an encoding, in at least single precision."""
    streams = {"audio": encoding.audio, "visual": encoding.visual, "fused": encoding.fused}
    found = {name: values for name, values in streams.items() if values is not None}
    found |= {name: encoding.aux[name] for name in sorted(reads)}
    return {name: at_least_single(values) for name, values in found.items()}


def _named(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """Return the tensors of a group by the rest of their names."""
    start = f"{group}."
    return {name[len(start) :]: v for name, v in tensors.items() if name.startswith(start)}
