"""The cells of open-vocabulary event localization: what each computes."""

from __future__ import annotations

from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL
from avplatform.tasks.avel.cells import CELLS as AVEL_CELLS
from avplatform.tasks.avel.cells import AVELCells

_CLOSED = "; only the classes of the training are outputs, so unseen ones are never found"
_NOTE = """\
**LEAP on OV-AVEL.** Nothing is published. Training asks for the texts of the seen classes and
"other", the text of background; validation and test ask for the texts of all classes and "other".
Losses and decisions are those of LEAP on AVEL. No weight depends on the number of classes.

**Closed-set controls.** DCH, MMIL and other decoders without texts have one output per class of the
training. On clips of unseen classes they can only be right where there is no event. Their figures
stand for all three groups of clips, and never with outputs for unseen classes.

**Weak supervision is ours:** the label of a clip is its class, or background if no segment has the
event. The files of OV-AVEBench name a weak setting but do not release it.
"""

CELLS = AVELCells(
    title="Open-vocabulary event localization (ovavel, OV-AVEBench)",
    figures="accuracy, segment F, event F",
    measured="OV-AVEBench: 1024 and 1024 per segment",
    ours={
        decoder: text.replace("28 events", "seen events").replace("29 texts", "all texts")
        + ("" if decoder is LEAP else _CLOSED)
        for decoder, text in AVEL_CELLS.ours.items()
    }
    | {DCH: f"AVE's head on both streams{_CLOSED}", MMIL: f"MMIL over the seen events{_CLOSED}"},
    rules={
        key: tuple(text.replace("29", "all").replace("28 events", "seen events") for text in texts)
        for key, texts in AVEL_CELLS.rules.items()
    },
    headed=DCH,
    heads={
        key: tuple(text.replace("29", "all").replace("28 events", "seen events") for text in texts)
        for key, texts in AVEL_CELLS.heads.items()
    },
    vectors="vectors, projected",
    maps="vectors, as maps of one position",
    several_models="; its fully or weakly supervised model, by supervision",
    note=_NOTE,
    rules_note=AVEL_CELLS.rules_note,
)
