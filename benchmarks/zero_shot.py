"""How much LEAP models know of classes by their texts alone, whatever the threshold.

    python -m benchmarks.zero_shot RUN [RUN ...] --data DATA --held-out Cat Violin_fiddle

Over the seconds of the test split: the area under the ROC curve of each class's probability (50 is
chance), for the audio and the visual stream (AVVP) or both at once (AVEL). Over the clips that hold
exactly one of the classes: how often its text has the highest probability. Figures are the mean and
standard deviation over the runs, which differ in their seeds.

A second table gives the task's own figure, decided without and with the model's bank (which is made
here where a run has none): on the clips that hold one of the classes, with the model choosing among
them or among all, on the other clips, among all, and the harmonic mean of the last two. Rows:

* nothing: the answer that nothing happens;
* plain: the decoder's own logits;
* decoder, linear: one of the two scores of the bank alone; both: the default;
* no rivals: both, without subtracting those of the trained classes;
* random: both, with a random vector in place of each text that the model was never trained on;
* not asked: trained classes only, where the bank is not read;
* rare: both, if each class is assumed to be as rare as a training class (the default of predict).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import harmonic_mean

import numpy as np
import torch
from accelerate import Accelerator
from scipy.stats import rankdata

from avplatform.data import Data, open_data
from avplatform.data.adapters.registry import make_task
from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.restricted import RestrictedData
from avplatform.data.reading.sampling import eval_batches
from avplatform.data.store.schema import BACKGROUND
from avplatform.evaluation.evaluate import evaluate
from avplatform.hub.folder import model_folder
from avplatform.labels.bank import ReferenceBank, read_bank
from avplatform.labels.held_out import data_for, without, zero_shot
from avplatform.labels.unseen import RIVALS, WithBank
from avplatform.models.av_model import AVModel
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import task_of_model

ROWS = ("nothing", "plain", "decoder", "linear", "no rivals", "both", "random", "rare", "not asked")
STREAMS = {"avvp": ("audio", "visual"), "avel": ("av",)}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("models", nargs="+")
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--held-out", nargs="+", required=True)
    options = arguments.parse_args()
    areas: list[np.ndarray] = []  # (streams, classes) a run
    tops: list[float] = []
    decided: list[np.ndarray] = []  # (rows, 4) a run
    for place in options.models:
        model, task, data = opened(place, options.data)
        parser, narrow, _, about = zero_shot(
            model, task, data, options.held_out, among="held-out", source=None
        )
        split = data.split("test")
        found, truth = (
            probabilities(parser, narrow, split),
            events(split, about["held_out"], task.name),
        )
        classes = range(len(about["held_out"]))
        areas.append(
            np.array(
                [
                    [area(f[..., n], t[..., n]) for n in classes]
                    for f, t in zip(found, truth, strict=True)
                ]
            )
        )
        tops.append(top_of_clips(found, truth))
        if not about["trained_on"]:
            decided.append(decisions(model, task, data, options.held_out))
    streams, runs = STREAMS[task.name], np.stack(areas)
    print(
        f"{'class':<36}" + "".join(f"{'AUC ' + stream:>18}" for stream in streams) + "   trained on"
    )
    for n, name in enumerate(about["held_out"]):
        known = "yes" if name in about["trained_on"] else "no"
        print(
            f"{name:<36}"
            + "".join(f"{spread(runs[:, s, n]):>18}" for s in range(len(streams)))
            + f"   {known}"
        )
    print(
        f"{'mean':<36}"
        + "".join(f"{spread(np.nanmean(runs[:, s], axis=1)):>18}" for s in range(len(streams)))
    )
    print(
        f"the right text is on top in {spread(np.array(tops))} % of the clips "
        f"with one of the {runs.shape[-1]} classes"
    )
    if decided:
        names = ("among them", "all: unseen", "all: seen", "all: harmonic")
        print(f"\n{task.selection_metric:<18}" + "".join(f"{name:>16}" for name in names))
        for number, name in enumerate(ROWS):
            cells = np.stack(decided)[:, number].T
            print(f"{name:<18}" + "".join(f"{spread(values):>16}" for values in cells))


def opened(place: str, folder: str) -> tuple[AVModel, Task, Data]:
    """Return the model of a run, and the task and data with all their classes."""
    model = AVModel.from_pretrained(model_folder(place))
    own = task_of_model(model.config)
    data = open_data(folder, task=own.name)
    return model, make_task(own.name, own.config, spec=data.spec), data


def decisions(
    model: AVModel, task: Task, data: Data, held_out: list[str], rows: Sequence[str] = ROWS
) -> np.ndarray:
    """Return the task's figure by row and column of the second table: [rows, 4].

    Other rows than those that are asked for stay NaN.
    """
    split = data_for(data, task_of_model(model.config)).split("train")
    bank = read_bank(model) or ReferenceBank.make(model, task_of_model(model.config), split)
    table = np.full((len(ROWS), 4), np.nan)
    for among in ("held-out", "all"):
        plain, narrow, restricted, about = zero_shot(
            model, task, data, held_out, among=among, source=None
        )
        names, _ = narrow.model_classes(model.config.decoder._type, model.config.encoder._type)
        unseen = [n for n, name in enumerate(names) if name in about["held_out"]]
        noise = plain.labels.clone()
        random = torch.randn(
            len(unseen), noise.shape[1], generator=torch.Generator().manual_seed(0)
        )
        noise[unseen] = random * noise[unseen].norm(dim=1, keepdim=True) / noise.shape[1] ** 0.5
        parsers = {"plain": plain}
        for row in (row for row in ROWS[2:-1] if row in rows):
            parsers[row] = WithBank(
                model,
                bank,
                narrow,
                noise if row == "random" else plain.labels,
                unseen,
                assumed="training" if row == "rare" else "present",
                scores=row if row in ("decoder", "linear") else "both",
                rivals=0.0 if row == "no rivals" else RIVALS,
            )
        others = without(task, data, held_out, model=model)
        for row, parser in parsers.items():
            places = [restricted] if among == "held-out" else [restricted, others]
            found = np.array([figures(parser, narrow, place) for place in places])  # (places, 2)
            if among == "all":
                found = np.vstack([found, [harmonic_mean(pair) for pair in found.T]])
            columns = slice(0, 1) if among == "held-out" else slice(1, 4)
            table[ROWS.index(row), columns] = found[:, 0]
            table[ROWS.index("nothing"), columns] = found[:, 1]
    own = task_of_model(model.config)
    trained = [name for name in own.classes if name != BACKGROUND]
    table[-1, 2] = figures(model, own, RestrictedData(others, trained))[0]
    return table


def figures(model: torch.nn.Module, task: Task, data: Data) -> tuple[float, float]:
    """Return the task's own figure on the test split, and that of nothing, in percent."""
    found = evaluate(model, task, data.split("test"), accelerator=Accelerator(cpu=True))
    metric, anchors = task.metric_of(found), found.details()["anchors"]
    nothing = next(
        anchors[name] for name in ("nothing_predicted", "always_background") if name in anchors
    )
    return found.figures()[metric], nothing[metric] if isinstance(nothing, dict) else nothing


def probabilities(model: torch.nn.Module, task: Task, split: SplitArrays) -> list[np.ndarray]:
    """Return a stream's probabilities over all clips, each [clips, T, C]."""
    parts: dict[str, list[np.ndarray]] = {stream: [] for stream in STREAMS[task.name]}
    with torch.inference_mode():
        for indices in eval_batches(len(split), 64, 0, 1):
            batch = split.batch(indices, labels=[])
            found = task.probabilities(model(batch.audio, batch.visual, batch.motion).parse)
            for stream, values in parts.items():
                values.append(found[stream].numpy())
    return [np.concatenate(values) for values in parts.values()]


def events(split: SplitArrays, names: list[str], task: str) -> list[np.ndarray]:
    """Return where the classes are, a stream: bool [clips, T, C]."""
    columns = [split.spec.classes.index(name) for name in names]
    if task == "avel":
        return [split.labels("segment")[..., None] == np.array(columns)]
    return [split.labels(f"dense_{stream}")[..., columns] > 0 for stream in STREAMS[task]]


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve in percent.

    It is how often a second with the event scores higher than one without.
    """
    s, t = scores.reshape(-1), truth.reshape(-1)
    positive, negative = int(t.sum()), int((~t).sum())
    if not positive or not negative:
        return float("nan")
    return 100 * float(rankdata(s)[t].sum() - positive * (positive + 1) / 2) / (positive * negative)


def top_of_clips(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Return the percentage of clips in which the text of the right class scores highest.

    Only clips that hold exactly one of the classes count.
    """
    present = np.any([stream.any(axis=1) for stream in truth], axis=0)  # (clips, C)
    highest = np.max([stream.max(axis=1) for stream in found], axis=0).argmax(axis=1)  # (clips,)
    chosen = present.sum(axis=1) == 1
    return 100 * float(present[chosen, highest[chosen]].mean())


def spread(values: np.ndarray) -> str:
    """Return mean and standard deviation over runs."""
    if np.isnan(values).all():
        return "-"
    return (
        f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
        if len(values) > 1
        else f"{values.mean():.1f}"
    )


if __name__ == "__main__":
    main()
