"""How much a LEAP model knows of classes by their texts alone, whatever the threshold.

    python benchmarks/zero_shot.py RUN --data DATA --held-out Cat Violin_fiddle

For every class: the area under the ROC curve of its probability over all seconds of the test split (50 is chance), heard and
seen; and, among clips that hold exactly one of the classes, how often its text scores highest (AVVP).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.stats import rankdata

from avplatform.build import whole_task_of_model
from avplatform.data import open_data
from avplatform.data.sampling import eval_batches
from avplatform.held_out import find_classes
from avplatform.hub import model_folder
from avplatform.open_labels import embed_labels
from models.av_model import AVModel


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--held-out", nargs="+", required=True)
    options = arguments.parse_args()
    model = AVModel.from_pretrained(model_folder(options.model))
    task = whole_task_of_model(model.config)
    if task.name != "avvp":
        arguments.error("this measures audio and visual events apart, so it is for models of avvp")
    names = find_classes(task, options.held_out)
    texts = dict(zip(*task.model_classes("leap"), strict=True))
    labels = embed_labels(model, [texts[name] for name in names]).values
    split = open_data(options.data, task="avvp").split("test")
    columns = [split.spec.classes.index(name) for name in names]
    scores = {"audio": [], "visual": []}
    with torch.inference_mode():
        for indices in eval_batches(len(split), 64, 0, 1):
            batch = split.batch(indices, labels=[])
            parse = model(batch.audio, batch.visual, batch.motion, label_embeddings=labels).parse
            for stream in scores:
                scores[stream].append(getattr(parse.segment, stream).probability.numpy())
    found = {stream: np.concatenate(parts) for stream, parts in scores.items()}
    truth = {stream: split.labels(f"dense_{stream}")[..., columns] > 0 for stream in scores}
    print(f"{'class':<24}{'AUC audio':>10}{'AUC visual':>11}   trained on")
    areas = {stream: [area(found[stream][..., n], truth[stream][..., n]) for n in range(len(names))] for stream in scores}
    for n, name in enumerate(names):
        known = "yes" if name in model.config.classes else "no"
        print(f"{name:<24}{areas['audio'][n]:>10.1f}{areas['visual'][n]:>11.1f}   {known}")
    print(f"{'mean':<24}{np.nanmean(areas['audio']):>10.1f}{np.nanmean(areas['visual']):>11.1f}")
    one, right = top_of_clips(found, truth)
    print(f"of {one} clips with one of the {len(names)} classes its text scores highest in {100 * right / one:.1f} %")


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve in percent: how often a second with the event scores higher than one without."""
    s, t = scores.reshape(-1), truth.reshape(-1)
    positive, negative = int(t.sum()), int((~t).sum())
    if not positive or not negative:
        return float("nan")
    return 100 * float(rankdata(s)[t].sum() - positive * (positive + 1) / 2) / (positive * negative)


def top_of_clips(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> tuple[int, int]:
    """Return how many clips hold exactly one of the classes, and in how many of them it has the highest score."""
    present = truth["audio"].any(axis=1) | truth["visual"].any(axis=1)
    highest = np.maximum(found["audio"].max(axis=1), found["visual"].max(axis=1)).argmax(axis=1)
    chosen = present.sum(axis=1) == 1
    return int(chosen.sum()), int(present[chosen, highest[chosen]].sum())


if __name__ == "__main__":
    main()
