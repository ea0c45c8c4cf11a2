"""`avplatform pseudo-label exchange|noise-ratio|drop|import`: weak labels, by modality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import UsageError, counted
from avplatform.models.paths import expanded

if TYPE_CHECKING:
    from avplatform.pseudo_labels.refine import Refiner, Truth
    from avplatform.tasks.avvp.refinements import NoiseRatios, RefinedLabels

SHOWN = 30  # classes in a table, those with most labels first


@dataclass(kw_only=True)
class _Common:
    model: str
    """run, model folder or hub id of a model of video parsing"""
    out: str
    """JSON file to write; labelling that was stopped goes on"""
    data: str | None = None
    """data folder or hub id whose training labels are refined; default: what the run trained on"""
    cache_dir: str | None = None
    """folder for cached data"""
    batch_size: int = 64
    """clips per forward pass"""
    threads: int = 0
    """CPU threads; 0: $OMP_NUM_THREADS, or all cores"""
    cpu: bool = False
    """stay on the CPU"""


@dataclass(kw_only=True)
class ExchangeOptions(_Common):
    """Drop labels that a trained model no longer finds when one track is another clip's (MA).

    Train with the file by `--task-config.refined FILE`.
    """

    seed: int = 2
    """seed of the partners"""
    both: Literal["allow", "keep_one"] = "allow"
    """whether a class may lose both modalities; keep_one: it keeps the more probable one"""


@dataclass(kw_only=True)
class RatioOptions(_Common):
    """Estimate how often a class's label does not hold in a modality, by a trained model (JoMoLD).

    Train with the file by `--task-config.denoise self --task-config.noise-ratios FILE`.
    """

    seed: int = 6
    """seed of the order of the clips, whose batches the means of the classes are taken over"""
    mean_batch: int = 128
    """clips per batch of these means"""
    audio_threshold: float = 0.6
    """an audio label is noise below this ratio to the class's mean probability"""
    visual_threshold: float = 1.8
    """the same for visual labels"""


@dataclass(kw_only=True)
class DropOptions:
    """Drop classes from a modality of all clips, without a model: the trivial rival."""

    data: str
    """data folder or hub id, or demo"""
    out: str
    """JSON file to write"""
    audio: tuple[str, ...] = ()
    """classes that are never heard"""
    visual: tuple[str, ...] = ()
    """classes that are never seen, such as Speech"""
    cache_dir: str | None = None
    """folder for cached data"""


@dataclass(kw_only=True)
class ImportOptions:
    """Convert refined labels that authors published (need_to_change.pkl) for LLP."""

    file: Annotated[str, tyro.conf.Positional]
    """the published file"""
    annotations: str
    """folder of the official annotation files"""
    out: str
    """JSON file to write"""


def run(args: list[str], prog: str) -> int:
    """Run the command that the first argument names."""
    name, rest = args[0], args[1:]
    return COMMANDS[name](rest, f"{prog} {name}")


def _exchange(args: list[str], prog: str) -> int:
    options = parse_flags(ExchangeOptions, args, prog)
    out, console = _new_file(options.out), Console()
    from avplatform.pseudo_labels.refine import finish, refine_by_exchange

    refiner = _refiner(options, console)
    train, validation = refine_by_exchange(refiner, out, seed=options.seed, both=options.both)
    train.save(out)
    finish(out)
    if alone := train.made_by["without_partner"]:
        console.note(
            f"{counted(alone, 'clip')} share a class with every other clip: nothing was dropped"
        )
    truth = _truth(refiner.data)
    _show_dropped(console, train, _weak(refiner.data), truth)
    if truth is not None and validation is not None:
        _show_judged(console, {"exchange": validation}, truth, refiner.data)
    console.note(f"wrote {out}; train with --task-config.refined {out}")
    return 0


def _noise_ratio(args: list[str], prog: str) -> int:
    options = parse_flags(RatioOptions, args, prog)
    out, console = _new_file(options.out), Console()
    from avplatform.pseudo_labels.refine import finish, ratios_of_noise

    refiner = _refiner(options, console)
    ratios = ratios_of_noise(
        refiner,
        out,
        seed=options.seed,
        audio_threshold=options.audio_threshold,
        visual_threshold=options.visual_threshold,
        mean_batch=options.mean_batch,
    )
    ratios.save(out)
    finish(out)
    _show_ratios(console, ratios, _weak(refiner.data), _truth(refiner.data))
    console.note(
        f"wrote {out}; train with --task-config.denoise self --task-config.noise-ratios {out}"
    )
    return 0


def _drop(args: list[str], prog: str) -> int:
    options = parse_flags(DropOptions, args, prog)
    out, console = _new_file(options.out), Console()
    if not options.audio and not options.visual:
        raise UsageError("nothing to drop; give --audio CLASS or --visual CLASS")
    from avplatform.data import open_data
    from avplatform.models.errors import unknown_name
    from avplatform.pseudo_labels.refine import refined_splits, without_classes
    from avplatform.tasks.avvp import AVVP

    data = open_data(
        options.data, task=AVVP.name, cache_dir=options.cache_dir, progress=console.note
    )
    chosen = {}
    for modality in ("audio", "visual"):
        for name in (names := getattr(options, modality)):
            if name not in data.spec.classes:
                raise unknown_name("class", name, data.spec.classes)
        chosen[modality] = [data.spec.classes.index(name) for name in names]
    splits = refined_splits(data)
    found = [without_classes(data, **chosen, split=split) for split in splits]
    found[0].save(out)
    truth = _truth(data)
    _show_dropped(console, found[0], _weak(data), truth)
    if truth is not None:
        _show_judged(console, {"drop": found[1]}, truth, data)
    console.note(f"wrote {out}; train with --task-config.refined {out}")
    return 0


def _import(args: list[str], prog: str) -> int:
    options = parse_flags(ImportOptions, args, prog)
    out, console = _new_file(options.out), Console()
    from avplatform.pseudo_labels.dataset import DATASET
    from avplatform.pseudo_labels.published import read_published

    annotations = DATASET.read(options.annotations)
    found = read_published(options.file, annotations)
    found.save(out)
    weak = annotations.labels["weak"][annotations.splits["train"]]
    _show_dropped(console, found, weak.astype(bool), None)
    console.note(f"wrote {out}; train with --task-config.refined {out}")
    return 0


COMMANDS = {"exchange": _exchange, "noise-ratio": _noise_ratio, "drop": _drop, "import": _import}


def _new_file(name: str) -> Path:
    path = expanded(name)
    if path.exists():
        raise UsageError(f"{path} exists; delete it, or give another --out")
    return path


def _refiner(options: _Common, console: Console) -> Refiner:
    from avplatform.base.machine import make_accelerator
    from avplatform.data import open_data
    from avplatform.models.av_model import AVModel
    from avplatform.models.checks import at_least
    from avplatform.pseudo_labels.refine import Refiner, check_separate
    from avplatform.runs.folder import results_beside, trained_on

    at_least(options, "batch_size", 1)
    at_least(options, "threads", 0)
    model = AVModel.from_pretrained(options.model)
    check_separate(model.config.task)
    name = options.data or trained_on(options.model)
    if name is None:
        raise UsageError(f"{options.model} does not say what it was trained on; give --data")
    data = open_data(
        name, task=model.config.task, cache_dir=options.cache_dir, progress=console.note
    )
    accelerator = make_accelerator(cpu=options.cpu, precision="no", threads=options.threads)
    return Refiner(
        model,
        name=options.model,
        data=data,
        accelerator=accelerator,
        console=console,
        batch_size=options.batch_size,
        trained_on=results_beside(options.model).get("data_checksum"),
    )


def _weak(data: Any) -> np.ndarray:
    return np.array(data.split("train").labels("weak"), dtype=bool)


def _truth(data: Any) -> Truth | None:
    """Return which labels of validation do not hold, if its events have times."""
    from avplatform.pseudo_labels.refine import Truth, refined_splits

    splits = refined_splits(data)
    return Truth.of(splits[1]) if len(splits) > 1 else None


def _show_dropped(
    console: Console, refined: RefinedLabels, weak: np.ndarray, truth: Truth | None
) -> None:
    """Print how many training labels of each class were dropped, and how many do not hold."""
    counts, dropped = weak.sum(axis=0), refined.dropped()
    gone = ~refined.keep_audio & ~refined.keep_visual
    rows = _class_rows(refined.classes, counts, dropped, truth, lambda n, of: _percent(n, of))
    total = int(counts.sum())
    all_row = ["all labels", str(total), *(_percent(dropped[m].sum(), total) for m in dropped)]
    if truth is not None:
        all_row += [_percent(x.sum(), truth.weak.sum()) for x in (truth.audio, truth.visual)]
    columns = ["class", "labels", "audio dropped", "visual dropped"]
    columns += ["never heard (validation)", "never seen (validation)"] if truth is not None else []
    console.table("training labels that were dropped, percent", columns, [*rows, all_row])
    console.note(f"{counted(int(gone.sum()), 'label')} lost both modalities")


def _show_ratios(
    console: Console, ratios: NoiseRatios, weak: np.ndarray, truth: Truth | None
) -> None:
    """Print the noise ratios beside the truth, and how far they and the trivial rival are off."""
    found = {"audio": ratios.audio, "visual": ratios.visual}
    rows = _class_rows(
        ratios.classes, weak.sum(axis=0), found, truth, lambda ratio, _: _percent(ratio, 1)
    )
    columns = ["class", "labels", "audio noise", "visual noise"]
    columns += ["never heard (validation)", "never seen (validation)"] if truth is not None else []
    console.table("noise ratios, percent", columns, rows)
    if truth is None:
        return
    modality, index = truth.rival()
    rival = {name: np.zeros(len(ratios.classes)) for name in found}
    rival[modality][index] = 1.0
    shares, labels = truth.shares(), truth.weak.sum(axis=0)
    lines = []
    for name, guess in (
        ("noise-ratio", found),
        (_rival_name(modality, ratios.classes[index]), rival),
        ("nothing is noise", {name: np.zeros(len(ratios.classes)) for name in found}),
    ):
        off = [
            100 * np.nansum(np.abs(guess[m] - shares[m]) * labels) / max(1, labels.sum())
            for m in ("audio", "visual")
        ]
        lines.append([name, *(f"{value:.1f}" for value in off)])
    console.table(
        "distance from the truth of validation, mean over labels, points",
        ["", "audio", "visual"],
        lines,
    )


def _show_judged(
    console: Console, found: dict[str, RefinedLabels], truth: Truth, data: Any
) -> None:
    """Print how right the dropped labels of validation are, beside the trivial rival."""
    from avplatform.pseudo_labels.refine import refined_splits, without_classes

    modality, index = truth.rival()
    chosen: dict[str, list[int]] = {"audio": [], "visual": []}
    chosen[modality] = [index]
    split = refined_splits(data)[1]
    rival = without_classes(data, audio=chosen["audio"], visual=chosen["visual"], split=split)
    rows = []
    for name, refined in {**found, _rival_name(modality, data.spec.classes[index]): rival}.items():
        judged = truth.judge(refined)
        cells = [name]
        for one in ("audio", "visual"):
            scores = judged[one]
            cells += [
                f"{scores['dropped']:.0f}",
                *(_figure(scores[k]) for k in ("precision", "recall")),
            ]
        rows.append(cells)
    columns = ["", "audio dropped", "right %", "found %", "visual dropped", "right %", "found %"]
    console.table("labels that do not hold, on validation", columns, rows)


def _rival_name(modality: str, name: str) -> str:
    return f"no {modality} {name} label"


def _class_rows(
    classes: tuple[str, ...],
    counts: np.ndarray,
    values: dict[str, np.ndarray],
    truth: Truth | None,
    cell: Any,
) -> list[list[str]]:
    """Return a row per class, the most frequent first: name, labels, values, and the truth."""
    shares = truth.shares() if truth is not None else {}
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    return [
        [
            classes[c],
            str(int(counts[c])),
            *(cell(values[m][c], counts[c]) for m in ("audio", "visual")),
            *(_percent(share[c], 1) for share in shares.values()),
        ]
        for c in order.tolist()
    ]


def _percent(part: float, whole: float) -> str:
    return "-" if not whole or np.isnan(part) else f"{100 * part / whole:.1f}"


def _figure(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"
