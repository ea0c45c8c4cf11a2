"""`avplatform bank`: make the bank by which a model finds labels that it was never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.labels.assumed import CLIPS
from avplatform.models.checks import at_least
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class BankOptions:
    """Make the reference bank of a trained model and write it beside its weights.

    `avplatform train --bank-clips N` makes one at the end of training. An old bank is replaced.
    """

    model: Annotated[str, tyro.conf.Positional]
    """run folder or model folder"""
    data: str | None = None
    """the training data: demo, a data folder or a hub id; default: those of the run"""
    cache_dir: str | None = None
    """folder for cached data; default: the data folder, $AVPLATFORM_CACHE or ~/.cache/avplatform"""
    clips: int = CLIPS
    """the most training clips to keep"""
    batch_size: int = 64
    """clips per batch"""
    cpu: bool = False
    """stay on the CPU"""
    threads: int = 0
    """CPU threads; 0: one per core of this machine"""


def run(args: list[str], prog: str) -> int:
    """Make a bank as the flags say."""
    options = parse_flags(BankOptions, args, prog)
    at_least(options, ("clips", "batch_size"), 1)
    at_least(options, "threads", 0)
    from avplatform.base.machine import make_accelerator
    from avplatform.data import Data, open_data
    from avplatform.data.store.schema import check_labels
    from avplatform.evaluation.scoring import check_fits
    from avplatform.labels.bank import ReferenceBank, check_bank
    from avplatform.labels.held_out import data_for
    from avplatform.models.av_model import BANK_FILE, AVModel
    from avplatform.models.paths import expanded
    from avplatform.runs.folder import trained_on
    from avplatform.tasks.registry import task_of_model

    place = expanded(options.model)
    if not place.is_dir():
        raise UsageError(f"{options.model} is not a folder; give a run folder or a model folder")
    accelerator = make_accelerator(cpu=options.cpu, precision="no", threads=options.threads)
    model = AVModel.from_pretrained(place).to(accelerator.device)
    task, name = task_of_model(model.config), options.data or trained_on(options.model)
    if name is None:
        raise UsageError(
            f"{options.model} does not say what it was trained on, as a converted model does not; "
            "give --data, a data folder or hub id of its training data"
        )
    check_bank(model, task)
    console = Console()
    data: Data = open_data(name, task=task.name, cache_dir=options.cache_dir, progress=console.note)
    check_fits(model, data)
    data = data_for(data, task)
    check_labels(data.spec, task)
    split = data.split("train")
    with console.bar("bank", total=len(split)) as bar:
        bank = ReferenceBank.make(
            model,
            task,
            split,
            clips=options.clips,
            checksum=data.checksum,
            batch_size=options.batch_size,
            on_batch=bar.advance,
        )
    assert model.folder is not None
    file = bank.save(model.folder / BANK_FILE)
    console.note(
        f"wrote {file}: {bank.about['clips']} of {len(split)} training clips, "
        f"{len(bank.about['classes'])} classes, {file.stat().st_size / 1e6:.1f} MB"
    )
    return 0
