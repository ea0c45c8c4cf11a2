"""Checkpoints as the authors saved them, made of the golden cases' names and shapes."""

from __future__ import annotations

import contextlib
import sys
import types
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.parity.golden_case import DEFAULT_GOLDEN, Case

# case -> name after --from, further flags, the pickled module's class path in the authors' scripts
CASES: dict[str, tuple[str, list[str], str]] = {
    "han_mmil": ("han", [], "nets.net_audiovisual.MMIL_Net"),
    "ma_han": ("ma", [], "nets.net_audiovisual.MMIL_Net"),
    "jomold_han": ("jomold", [], "nets.net_audiovisual.MMIL_Net"),
    "cvcms_net": ("cvcms", [], "nets.net_audiovisual.MMIL_Net"),
    "valor_han_post": ("valor", [], "model.ModelDispatcher"),
    "valor_han_pre": ("valor", ["--norm", "pre"], "model.ModelDispatcher"),
    "mmpyr_mmil": ("mmpyr", [], "nets.net_audiovisual.MMIL_Net"),
    "mmpyr_leap": ("leap", ["--label-embeddings", "labels.npy"], "nets.net_audiovisual.MMIL_Net"),
    "cmpae_model": ("cmpae", [], "nets.net_audiovisual.MMIL_Net"),
    "ave_att": ("ave", [], "models.att_Net"),
    "ave_att_weak": ("ave", ["--weak"], "models_weakly.att_Net"),
    "ave_dmrn": ("dmrn", [], "models_fusion.TBMRF_Net"),
    "psp_full": ("psp", [], "fully_model.psp_net"),
    "psp_weak": ("psp", [], "weakly_model.psp_net"),
    "cmbs_full": ("cmbs", [], "model.main_model.supv_main_model"),
    "cmbs_weak": ("cmbs", [], "model.main_model.weak_main_model"),
    "dhhn_model": ("dhhn", [], "nets.net_audiovisual.HCMN"),
    "mgn_model": ("mgn", [], "nets.mgn.MGN_Net"),
    # The class of OV-AVEL's script is not known to us.
    "ovavel_temporal": ("ovavel", ["--label-embeddings", "labels.npy"], "unknown.Model"),
    "mgn_hard": (
        "mgn",
        ["--assignment", "hard", "--joint-assignment", "hard"],
        "nets.mgn.MGN_Net",
    ),
}


@lru_cache(maxsize=1)
def golden(name: str) -> tuple[Case, dict[str, Tensor]]:
    """A case and its weights; filling the large ones takes seconds, so tests go case by case."""
    case = Case(name, DEFAULT_GOLDEN)
    return case, case.weights()


@contextlib.contextmanager
def throw_away_class(path: str, bases: tuple[type, ...] = (nn.Module,)) -> Iterator[type]:
    """A class that pickles under this path and cannot be found once the block has ended."""
    module_name, name = path.rsplit(".", 1)
    made, parent = [], ""
    for part in module_name.split("."):
        full = f"{parent}.{part}".strip(".")
        if full not in sys.modules:
            sys.modules[full] = types.ModuleType(full)
            made.append(full)
        parent = full
    cls = type(name, bases, {"__module__": module_name})
    setattr(sys.modules[module_name], name, cls)
    try:
        yield cls
    finally:
        delattr(sys.modules[module_name], name)
        for full in made:
            del sys.modules[full]


def module_of(tensors: dict[str, Tensor], cls: type) -> nn.Module:
    """A module tree with these parameters, all of one class; tensors that are one stay one."""
    root, parameters = cls(), {}
    for name, value in tensors.items():
        *above, leaf = name.split(".")
        module = root
        for part in above:
            if part not in module._modules:
                module.add_module(part, cls())
            module = module._modules[part]
        parameters.setdefault(
            id(value), nn.Parameter(value, requires_grad=value.is_floating_point())
        )
        module.register_parameter(leaf, parameters[id(value)])
    return root


def save(value: object, path: Path, *, legacy: bool) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a throw-away class has no source to store
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def save_as(
    form: str, tensors: dict[str, Tensor], path: Path, class_path: str = "fully_model.psp_net"
) -> Path:
    """Save in one of the forms in which checkpoints were published."""
    if form in ("zip", "legacy"):
        return save(tensors, path, legacy=form == "legacy")
    if form == "data-parallel":
        return save(
            {f"module.{name}": value.double() for name, value in tensors.items()},
            path,
            legacy=False,
        )
    with throw_away_class(class_path) as cls:
        module = module_of(tensors, cls)
        return save(
            nn.DataParallel(module) if form == "wrapped module" else module, path, legacy=True
        )


FORMS = ("zip", "legacy", "data-parallel", "module")
