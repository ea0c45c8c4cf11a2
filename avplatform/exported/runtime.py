"""Exported networks on onnxruntime, called like the models that they were made from."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from avplatform.exported.about import about_of, as_texts, read_texts, unpacked
from avplatform.exported.graph import trace
from avplatform.exported.onnx_form import onnx_bytes
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import DECIDING_AUX, Encoding, Output, Parse, Prediction
from avplatform.models.errors import DataError, UsageError, one_line
from avplatform.models.paths import expanded

SUFFIX = ".onnx"
ARCHIVE = ".pt2"
CHANGED = "does not say rightly what it is; write it again with `avplatform export`"
"""What is said of a file whose description does not fit its network."""


class ExportedModel(nn.Module):
    """An ONNX file that `avplatform export` wrote, as a model that returns a parse.

    It runs on the CPU with as many threads as torch has. There is no encoding in its output.

    Args:
        file: the file, or its content.

    Raises:
        DataError: the file is not there, is not ONNX, was not written by `avplatform export`, or
            was changed since.
        UsageError: onnxruntime is not installed.
    """

    folder: Path | None = None
    label_embeddings: Tensor | None

    def __init__(self, file: str | Path | bytes) -> None:
        super().__init__()
        place = "the exported network" if isinstance(file, bytes) else str(file)
        self.session = session_of(file)
        texts = self.session.get_modelmeta().custom_metadata_map
        self.about = about = read_texts(texts, place)
        self.config = AVModelConfig.from_dict(about["config"])
        self.reads = {found.name: found.shape for found in self.session.get_inputs()}
        try:
            own = (
                None
                if "label_embeddings" not in self.reads
                else unpacked(about["label_embeddings"])
            )
            streams = tuple(about["outputs"].get("attention", {}).get("streams", ()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{place} {CHANGED} ({one_line(error, 300, named=True)})") from None
        if list(about["outputs"]) != [found.name for found in self.session.get_outputs()]:
            raise DataError(f"{place} {CHANGED} (its outputs have other names)")
        if own is not None and list(own.shape) != [len(self.config.classes), self.config.label_dim]:
            raise DataError(f"{place} {CHANGED} (label_embeddings are {list(own.shape)})")
        self.register_buffer("label_embeddings", own)
        self.register_buffer("place", torch.zeros(0))
        self.decoder = SimpleNamespace(streams=streams)

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        motion: Tensor | None = None,
        label_embeddings: Tensor | None = None,
    ) -> Output:
        """Parse clips; the arguments are those of `AVModel`.

        Raises:
            DataError: an input is missing, is empty, or has a size that the network does not read.
            UsageError: labels are given to a network that does not read them.
        """
        labels = self.label_embeddings if label_embeddings is None else label_embeddings
        if label_embeddings is not None and "label_embeddings" not in self.reads:
            raise UsageError("this exported model knows its own classes only; leave labels out")
        given = {"audio": audio, "visual": visual, "motion": motion, "label_embeddings": labels}
        feed = {name: given[name] for name in self.reads}
        if missing := [name for name, values in feed.items() if values is None]:
            raise DataError(f"{missing[0]} features are missing, which the model reads")
        arrays = {n: x.detach().float().cpu().numpy() for n, x in feed.items() if x is not None}
        for name, array in arrays.items():
            check_shape(name, array.shape, self.reads[name])
        try:
            found = self.session.run(None, arrays)
        except Exception as error:  # onnxruntime has a class of its own for each kind of error
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise DataError(
                f"the exported network fails at {shapes}: {one_line(error, 300, named=True)}"
            ) from None
        outputs, parse = self.about["outputs"], Parse()
        for (name, told), array in zip(outputs.items(), found, strict=True):
            values = torch.from_numpy(array).to(audio.device)
            if name in DECIDING_AUX:
                parse.aux[name] = values
            elif name == "attention":
                parse.attention = values
            else:
                how = {key: told[key] for key in ("kind", "activation") if key in told}
                parse.add(name, Prediction(values, **how))
        parse.queried_by_labels = bool(self.about.get("queried_by_labels"))
        return Output(parse, cast(Encoding, None))


def check_shape(name: str, shape: Sequence[int], wanted: Sequence[int | str]) -> None:
    """Raise DataError unless a shape is the wanted one, in which a name stands for any size from 1.

    onnxruntime ends the whole process where an LSTM reads no clip.
    """
    pairs = zip(shape, wanted, strict=False)
    if len(shape) != len(wanted) or any(
        n != size if isinstance(size, int) else n < 1 for n, size in pairs
    ):
        axes = ", ".join(map(str, wanted))
        raise DataError(
            f"{name} is {list(shape)}, but this exported network reads [{axes}], where a name "
            "stands for any size from 1 on"
        )


def session_of(file: str | Path | bytes) -> Any:
    """Return an onnxruntime session of a file, or of its content.

    Raises:
        UsageError: onnxruntime is not installed.
        DataError: the file is not there, or is not ONNX.
    """
    onnxruntime = needed("onnxruntime")
    if not isinstance(file, bytes) and not Path(file).is_file():
        raise DataError(f"there is no file {file}; write one with `avplatform export`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        content = file if isinstance(file, bytes) else str(file)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each kind of error
        text = one_line(error)
        raise DataError(
            f"{'it' if isinstance(file, bytes) else file} is not ONNX: {text}"
        ) from None


def needed(*packages: str) -> Any:
    """Return the last of some packages, imported.

    Raises:
        UsageError: one is not installed; says how to install it.
    """
    try:
        return [importlib.import_module(name) for name in packages][-1]
    except ImportError as error:
        raise UsageError(
            f"{error.name or packages[-1]} is not installed, which exported models need: "
            'pip install "avplatform[export]"'
        ) from None


def open_model(place: str | Path | AVModel, *, runtime: str = "torch") -> AVModel:
    """Return a model that is ready for inference, on torch or on onnxruntime ("onnx").

    Args:
        place: a run folder, a model folder, a hub id, a model, or a file that `export` wrote
            (FILE.onnx), which always runs on onnxruntime.
        runtime: "torch" or "onnx".

    Raises:
        DataError: there is no such model.
        UsageError: the file is one of torch-export, a package of the extra `export` is missing, or
            the model cannot be exported.
    """
    if not isinstance(place, AVModel) and Path(place).suffix == SUFFIX:
        return cast(AVModel, ExportedModel(expanded(place)))
    archive = not isinstance(place, AVModel) and Path(place).suffix == ARCHIVE
    if archive and expanded(place).is_file():  # type: ignore[arg-type]
        raise UsageError(
            f"{place} is a file for `torch.export.load`, which is not read here; give the run or "
            f"model folder that it was made from, or export it to a FILE{SUFFIX}"
        )
    loaded = place if isinstance(place, AVModel) else AVModel.from_pretrained(model_folder(place))
    return cast(AVModel, on_onnxruntime(loaded)) if runtime == "onnx" else loaded


def check_without_bank(model: AVModel, new: Sequence[str], assumed: str | None) -> None:
    """Raise UsageError where an exported network would need the bank of its model.

    Args:
        model: any model.
        new: the labels that are asked for and that the model was never trained on.
        assumed: what is assumed of them, see `Assumed`; None: nobody asked.
    """
    if not isinstance(model, ExportedModel) or not new or assumed == "plain":
        return
    if assumed is not None or model.about.get("bank"):
        raise UsageError(
            f"the model was never trained on {new[0]}: such labels are decided by the model's "
            "bank, which an exported network does not have; choose --unseen plain, or --runtime "
            "torch"
        )


def on_onnxruntime(model: AVModel) -> ExportedModel:
    """Return a model as an exported network, made in memory.

    Raises:
        UsageError: a package of the extra `export` is missing, or the model cannot be exported.
    """
    needed("onnx", "onnxscript", "onnxruntime")
    traced = trace(model)
    return ExportedModel(onnx_bytes(traced, as_texts(about_of(model, traced))))
