"""Readers of the checkpoints that the authors of the papers published.

`avplatform.models.checkpoint.file.read_checkpoint` reads the tensors of a file without running any
of its code. `open_reader` returns the reader of a published model, whose `read` builds our model
from the tensors. Sizes are inferred from shapes; what shapes cannot tell (heads, norm placement,
the weak setting of AVE) is an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from avplatform.models.errors import UsageError, unknown_name
from avplatform.models.official.ave import AVEReader, DMRNReader
from avplatform.models.official.cmbs import CMBSReader
from avplatform.models.official.cmpae import CMPAEReader
from avplatform.models.official.cvcms import CVCMSReader
from avplatform.models.official.dhhn import DHHNReader
from avplatform.models.official.han import HANReader, VALORReader
from avplatform.models.official.jomold import JoMoLDEstimatorReader, JoMoLDReader
from avplatform.models.official.leap import LEAPDecoderReader, LEAPReader
from avplatform.models.official.ma import MAReader
from avplatform.models.official.mgn import MGNReader
from avplatform.models.official.mmil import MMILReader
from avplatform.models.official.mmpyr import MMPyrReader
from avplatform.models.official.ovavel import OVAVELReader
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
        MAReader,
        JoMoLDReader,
        JoMoLDEstimatorReader,
        CVCMSReader,
        CMPAEReader,
        MGNReader,
        DHHNReader,
        OVAVELReader,
    )
}
"""Readers of whole models, by the name of the published model."""

PARTS: dict[str, type[Reader]] = {reader.name: reader for reader in (MMILReader, LEAPDecoderReader)}
"""Readers of decoders alone."""


def open_reader(name: str, **options: Any) -> Reader:
    """Return the reader of a published model; an option that is None counts as not given.

    Raises:
        UsageError: an unknown name, or an option that this model does not take; names the models
            that take it.
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
    """Build our model, or a decoder alone, from an official state dict.

    The model has the precision of the tensors, and at least float32.

    Args:
        name: the name of the published model, see `OFFICIAL` and `PARTS`.
        tensors: the state dict; a "module." prefix of all names is stripped.
        labels: class names, label texts and task options (ignored for a decoder alone).
        options: heads, blocks, norm ("post" or "pre"), weak, label_embeddings, assignment and
            joint_assignment ("soft" or "hard"), adjacency, window and power_norm.

    Raises:
        UsageError: an unknown name or option.
        DataError: missing or unknown keys, or wrong shapes, listed by name.
    """
    return open_reader(name, **options).read(tensors, labels)


def key_map(name: str, tensors: Mapping[str, Tensor], **options: Any) -> dict[str, str]:
    """Return {official name: our parameter name} for every tensor that the model uses."""
    reader, tensors = open_reader(name, **options), clean(tensors)
    reader.look(tensors)
    return reader.key_map(tensors)
