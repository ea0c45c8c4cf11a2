"""Reads the checkpoints that the papers' authors published, one key map a model.

`read_checkpoint` (in `checkpoint_file`) gets the tensors out of a file without running anything of it; `open_reader` gives
the reader of a published model, whose `read` builds ours from them: what shapes tell is inferred, what they cannot tell
(heads, norm placement, the weak setting of AVE) is an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from avplatform.models.errors import UsageError, unknown_name
from avplatform.models.official.ave import AVEReader, DMRNReader
from avplatform.models.official.cmbs import CMBSReader
from avplatform.models.official.han import HANReader, VALORReader
from avplatform.models.official.leap import LEAPDecoderReader, LEAPReader
from avplatform.models.official.mmil import MMILReader
from avplatform.models.official.mmpyr import MMPyrReader
from avplatform.models.official.psp import PSPReader
from avplatform.models.official.reader import Labels, Reader, Setting, clean

__all__ = ["OFFICIAL", "PARTS", "Labels", "Setting", "key_map", "open_reader", "read_official"]

OFFICIAL: dict[str, type[Reader]] = {
    reader.name: reader
    for reader in (
        HANReader,
        MMPyrReader,
        LEAPReader,
        AVEReader,
        DMRNReader,
        PSPReader,
        CMBSReader,
        VALORReader,
    )
}
"""Readers by the name of the published model."""

PARTS: dict[str, type[Reader]] = {reader.name: reader for reader in (MMILReader, LEAPDecoderReader)}
"""Readers of bare decoders."""


def open_reader(name: str, **options: Any) -> Reader:
    """Return the reader of a published model; an option that is None was not given.

    Raises:
        UsageError: unknown name, or an option that this model does not take; says which ones do.
    """
    known = {**OFFICIAL, **PARTS}
    if name not in known:
        raise unknown_name("official model", name, known)
    for option, value in options.items():
        if value is not None and option not in known[name].takes:
            takers = ", ".join(other for other, kind in OFFICIAL.items() if option in kind.takes)
            raise UsageError(
                f"--{option.replace('_', '-')} means nothing for {name}; it is for {takers}"
            )
    return known[name](**options)


def read_official(
    name: str, tensors: Mapping[str, Tensor], labels: Labels, **options: Any
) -> nn.Module:
    """Build our model (or bare decoder) from an official state dict; in the tensors' precision, at least float32.

    Args:
        name: which published model, see `OFFICIAL` and `PARTS`.
        tensors: the state dict; a "module." prefix of all names is stripped.
        labels: class names, label texts and task options (of bare decoders, ignored).
        options: heads, blocks, norm ("post" or "pre"), weak, label_embeddings.

    Raises:
        UsageError: unknown name or option.
        DataError: missing, unknown or misshapen keys, listed by name.
    """
    return open_reader(name, **options).read(tensors, labels)


def key_map(name: str, tensors: Mapping[str, Tensor], **options: Any) -> dict[str, str]:
    """Return {official name: our parameter name} for every tensor that the model uses; shapes are equal."""
    reader, tensors = open_reader(name, **options), clean(tensors)
    reader.look(tensors)
    return reader.key_map(tensors)
