"""Export a model to a file, and check the file against the model before it is kept."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from avplatform.exported.about import about_of, as_texts
from avplatform.exported.graph import Traced, example, for_any_torch, trace, values_of
from avplatform.exported.onnx_form import onnx_bytes
from avplatform.exported.runtime import ARCHIVE, SUFFIX, needed, session_of
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import AVModel
from avplatform.models.errors import DataError, UsageError, one_line, unknown_name
from avplatform.models.files import write_atomic
from avplatform.models.paths import expanded
from avplatform.training_free.model import TRAINING_FREE

Format = Literal["onnx", "torch-export"]
ENDINGS = {"onnx": SUFFIX, "torch-export": ARCHIVE}
"""The endings by which runtimes know the files."""
TOLERANCE = 1e-4
"""The largest allowed difference from the model, as a share of the output's largest value or 1."""
ABOUT = "about.json"
"""The file in a torch-export archive that says what the network is."""
Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exported file: where it is, what it says of itself, and how far it was checked.

    `differences` has the largest difference from the model by the sizes of the inputs.
    """

    file: Path
    about: dict[str, Any]
    differences: dict[str, float]

    @property
    def largest(self) -> float:
        """The largest difference from the model."""
        return max(self.differences.values())


def export(
    model: str | Path | AVModel, file: str | Path, *, to: Format = "onnx", replace: bool = False
) -> Written:
    """Write the network of a model to one file, with all that is needed to use it.

    The file reads segment features, and label embeddings where the model compares with label
    texts. The numbers of clips, segments and labels are free; MGN with `audio_segments` "grouped"
    keeps its number of segments, and embeddings that were learned keep that of labels. The file is
    compared with the model at several sizes before it is kept.

    Args:
        model: a run folder, a model folder, a hub id, or a model.
        file: the file to write.
        to: "onnx" (FILE.onnx), or "torch-export" (FILE.pt2, which `torch.export.load` reads).
        replace: the file may exist.

    Raises:
        UsageError: the format is unknown, the file exists or has another ending, the model is
            itself a file or "training-free", a package of the extra `export` is missing, or the
            model cannot be exported.
        DataError: there is no such model, the file cannot be written, or it does not compute what
            the model computes.

    Examples:
        ```python
        export("runs/mine", "mine.onnx").largest
        ```
    """
    if to not in get_args(Format):
        raise unknown_name("format", to, get_args(Format))
    path = expanded(file)
    if path.is_dir():
        raise UsageError(f"{file} is a folder; give the file to write, such as {file}/model.onnx")
    if path.suffix != ENDINGS[to]:
        raise UsageError(
            f"{file} does not end in {ENDINGS[to]}, by which runtimes know a file of this format; "
            "name it so"
        )
    if path.exists() and not replace:
        raise UsageError(f"{file} exists; give --replace to write it again, or another file")
    try:  # before the work, which takes long
        there = next(parent for parent in path.parents if parent.exists())
        NamedTemporaryFile(dir=there, prefix=f".{path.name}.partial-").close()
    except OSError as error:
        raise _unwritable(file, error) from None
    if to == "onnx":
        needed("onnx", "onnxscript", "onnxruntime")
    loaded = _single(model if isinstance(model, AVModel) else _loaded(model))
    traced = trace(loaded)
    about = about_of(loaded, traced)
    if to == "onnx":
        content = onnx_bytes(traced, as_texts(about))
        run = _onnx_run(content, list(traced.outputs))
    else:
        content = torch_bytes(traced, about)
        run = _torch_run(content)
    differences = checked(run, loaded, traced)
    try:
        write_atomic(path, content)
    except OSError as error:
        raise _unwritable(file, error) from None
    return Written(file=path, about=about, differences=differences)


def _unwritable(file: str | Path, error: OSError) -> DataError:
    return DataError(f"cannot write {file}: {error.strerror or error}")


def _loaded(place: str | Path) -> AVModel:
    """Return the model of a place.

    Raises:
        UsageError: the place is a file, or the training-free model.
        DataError: there is no such model.
    """
    if str(place) == TRAINING_FREE:
        raise UsageError(
            f"{TRAINING_FREE} cannot be exported: it consists of CLIP and CLAP and has no network "
            "of its own; give a run folder, a model folder or a hub id"
        )
    if expanded(place).is_file():
        raise UsageError(f"{place} is a file; give the run or model folder of the model to export")
    return AVModel.from_pretrained(model_folder(place))


def _single(model: AVModel) -> AVModel:
    """Return a copy of a model in evaluation mode, and in single precision if it has less."""
    found = copy.deepcopy(model).eval()
    return found.float() if found.dtype.itemsize < torch.float32.itemsize else found


@torch.no_grad()
def checked(run: Run, model: AVModel, traced: Traced) -> dict[str, float]:
    """Return the largest difference of a network from its model, by the sizes of the inputs.

    Raises:
        DataError: it is not small, or the network fails at sizes at which the model does not.
    """
    found = {}
    for seed, sizes in enumerate(_sizes(model, traced)):
        inputs = example(model, seed=seed + 1, **sizes)
        dtype = model.dtype
        device = next(model.parameters(), torch.zeros(0)).device
        given = {name: values.to(device, dtype) for name, values in inputs.items()}
        wanted = values_of(model(**given).parse.for_decisions)
        shape = ", ".join(f"{n} {list(x.shape)}" for n, x in inputs.items())
        try:
            got = run(inputs)
        except Exception as error:  # runtimes raise errors of many kinds
            reason = one_line(error, 300, named=True)
            raise DataError(f"the exported network fails at {shape}: {reason}") from None
        largest = 0.0
        for name, values in wanted.items():
            difference = (got[name].cpu().double() - values.cpu().double()).abs().max().item()
            if not difference <= TOLERANCE * max(1.0, values.abs().max().item()):
                raise DataError(
                    f"the exported network is not equal to the model: {name} differs by "
                    f"{difference:.1e} at {shape}; no file was kept"
                )
            largest = max(largest, difference)
        found[shape] = largest
    return found


def _sizes(model: AVModel, traced: Traced) -> list[dict[str, Any]]:
    """Return sizes of inputs other than the traced ones, within what the model reads."""
    own = model.config.segments
    found: list[dict[str, Any]] = [
        {"batch": 1, "segments": own},
        {"batch": 4, "segments": own + 7, "labels": 9},
        {"batch": 2, "segments": 3, "labels": 1},
        {"batch": 1, "segments": 1, "labels": 1},
    ]
    if "segments" not in traced.inputs["audio"]:
        found = [sizes | {"segments": own} for sizes in found]
    return found


def torch_bytes(traced: Traced, about: Mapping[str, Any]) -> bytes:
    """Return the content of a file of torch.export, which needs nothing but torch."""
    buffer = io.BytesIO()
    program, files = for_any_torch(traced.program), {ABOUT: json.dumps(about, ensure_ascii=False)}
    torch.export.save(program, buffer, extra_files=files)
    return buffer.getvalue()


def _onnx_run(content: bytes, names: list[str]) -> Run:
    session = session_of(content)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(None, {name: values.numpy() for name, values in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run


def _torch_run(content: bytes) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: module(**inputs)
