"""Reads the checkpoints that the papers' authors published, one key map a model.

`read_official(name, tensors)` builds our model from an official state dict: what shapes tell is inferred, what they
cannot tell (heads, norm placement, the weak setting) is an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.errors import DataError, unknown_name
from models.official.ave import AVEReader, DMRNReader
from models.official.cmbs import CMBSReader
from models.official.han import HANReader, MMILReader, VALORReader
from models.official.leap import LEAPDecoderReader
from models.official.mmpyr import LEAPReader, MMPyrReader
from models.official.psp import PSPReader
from models.official.reader import Reader, clean

OFFICIAL: dict[str, type[Reader]] = {
    "han": HANReader,
    "valor": VALORReader,
    "ave": AVEReader,
    "dmrn": DMRNReader,
    "mmil": MMILReader,
    "leap_decoder": LEAPDecoderReader,
    "mmpyr": MMPyrReader,
    "leap": LEAPReader,
    "psp": PSPReader,
    "cmbs": CMBSReader,
}
"""Readers by the name of the published model ("mmil" and "leap_decoder" are bare parts)."""


def read_official(name: str, tensors: Mapping[str, Tensor], **options: Any) -> nn.Module:
    """Build our model (or bare decoder) from an official state dict; the tensors keep their precision.

    Args:
        name: which published model, see `OFFICIAL`.
        tensors: the state dict; a "module." prefix is stripped.
        options: heads, norm ("post" or "pre"), weak: what shapes cannot tell.

    Raises:
        UsageError: unknown name.
        DataError: missing, unknown or misshapen keys, listed by name.
    """
    reader = _reader(name, options)
    tensors = clean(tensors)
    model = reader.build(tensors)
    keys = reader.key_map(tensors)
    own = model.state_dict()
    unknown = sorted(set(tensors) - set(keys) - set(reader.unused(tensors)))
    missing = sorted(set(own) - set(keys.values()) - set(reader.not_in_checkpoint))
    for name in set(reader.reshaped) & set(tensors):
        if (ours := keys[name]) in own and own[ours].numel() == tensors[name].numel():
            tensors[name] = tensors[name].reshape(own[ours].shape)
    misshapen = sorted(k for k, ours in keys.items() if ours in own and own[ours].shape != tensors[k].shape)
    lists = {"unknown": unknown, "missing (our names)": missing, "misshapen": misshapen}
    found = [f"{kind}: {', '.join(names[:10])}" for kind, names in lists.items() if names]
    if found:
        raise DataError(f"this is no {name} checkpoint as published ({'; '.join(found)})")
    dtype = next(iter(tensors.values())).dtype
    model = model.to(dtype)
    model.load_state_dict({ours: tensors[k] for k, ours in keys.items()}, strict=not reader.not_in_checkpoint)
    return model.eval()


def key_map(name: str, tensors: Mapping[str, Tensor], **options: Any) -> dict[str, str]:
    """Return {official name: our parameter name} for every tensor that the model uses; shapes are equal."""
    return _reader(name, options).key_map(clean(tensors))


def _reader(name: str, options: dict[str, Any]) -> Reader:
    if name not in OFFICIAL:
        raise unknown_name("official model", name, OFFICIAL)
    return OFFICIAL[name](**options)
