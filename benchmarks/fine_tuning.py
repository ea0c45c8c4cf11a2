"""How many steps a model of 25 classes saves that goes on with 6 others, against a new one.

    python -m benchmarks.fine_tuning runs/fine-tuning

SYNTHETIC features of 31 classes in one space: those of LLP's simulation, for the classes of LLP and
six of AVE. A model is trained on clips of the 25 classes of LLP; then, for each seed and learning
rate, a new model and models that start from it (`--init-from`) are trained on 96 clips of the six
others, with the same options, and validated on 300 clips after every epoch (12 steps). The target
is the best validation score of the new model, and 90 % of it; the table holds the steps at which
the runs first reach it. The learning rate of the new models is the one with which they score best
on average. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from avplatform.cli import main as avplatform
from avplatform.data.adapters.llp.classes import CLASSES, LABEL_TEXTS
from avplatform.data.adapters.llp.simulation import OUTPUTS, LLPSimulation
from avplatform.data.adapters.world import World, clip_generator, jitter, mask_out, smear
from avplatform.data.store.schema import DataSpec
from avplatform.data.store.writer import StoreWriter
from avplatform.models.contracts import FeatureSpec

SEGMENTS = 10
OTHERS = ("church bell", "train horn", "ukulele", "goat", "toilet flush", "bus")
STORES = {
    "many": (range(len(CLASSES)), {"train": 1000, "validation": 100, "test": 100}),
    "six": (range(len(CLASSES), len(CLASSES) + len(OTHERS)),
            {"train": 96, "validation": 300, "test": 96}),
}  # fmt: skip
"""The stores: positions of their classes among all, and the clips of each split."""
METRIC = "segment_Type@AV"
SHARES = (1.0, 0.9)
SMALL = ["--encoder-config.width", "128", "--encoder-config.hidden", "128"]
OWN = {"leap": ["--decoder-config.score-gain", "4", "--decoder-config.score-bias", "-2.5"]}
"""Options of both runs of a decoder; with its gain and bias LEAP learns in fewer steps."""
SIX = ["--epochs", "30"]
MANY = ["--batch-size", "16", "--epochs", "14", "--optim.lr", "1e-3"]


def draw_events(rng: np.random.Generator, classes: range, first: int) -> dict[str, np.ndarray]:
    """Draw what is heard and seen in a clip: one or two classes, bool [T, C] per modality."""
    maps = {m: np.zeros((SEGMENTS, len(CLASSES) + len(OTHERS)), bool) for m in ("audio", "visual")}
    others = rng.choice([c for c in classes if c != first], 1)
    for label in [first, *others][: int(rng.integers(1, 3))]:
        onset = int(rng.integers(0, SEGMENTS - 2))
        span = slice(onset, onset + int(rng.integers(2, 8)))
        where = rng.choice(["audio", "visual", "both"], p=(0.2, 0.1, 0.7))
        for modality, found in maps.items():
            found[span, label] = where in (modality, "both")
    return maps


def draw_features(
    world: World, rng: np.random.Generator, maps: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Draw the latent vectors [T, K] of a clip, as LLP's simulation does."""
    c, latent = LLPSimulation(), {}
    for number, (modality, own) in enumerate(maps.items()):
        gain = np.exp(c.gain_spread * rng.standard_normal(own.shape[1]))
        drive = smear(gain[:, None] * jitter(rng, own.T, c.label_jitter))
        drive = c.amplitude[number] * mask_out(
            drive * np.exp(c.segment_gain_spread * rng.standard_normal(SEGMENTS))
        )
        z = world.ground(rng, modality, SEGMENTS)
        for label in np.flatnonzero(drive.any(axis=1)):
            z += drive[label][:, None] * world.instance(rng, modality, int(label))
        latent[modality] = z.astype(np.float32)
    return latent


def make_stores(folder: Path) -> None:
    """Write both stores, whose features one world makes."""
    constants = LLPSimulation()
    world = World(constants, [*LABEL_TEXTS, *OTHERS], OUTPUTS)
    names = [*CLASSES, *OTHERS]
    drawn: dict[str, list[tuple]] = {}
    for store, (classes, sizes) in STORES.items():
        for split, count in sizes.items():
            for n in range(count):
                rng = clip_generator(constants.seed, f"{store} {split} {n}")
                maps = draw_events(rng, classes, classes[n % len(classes)])
                clip = (split, maps, draw_features(world, rng, maps), rng)
                drawn.setdefault(store, []).append(clip)
    sample = [clip[2] for clip in drawn["many"][:600]]
    world.calibrate({m: np.concatenate([z[m] for z in sample]) for m in ("audio", "visual")})
    for store, clips in drawn.items():
        chosen = list(STORES[store][0])
        shape = [SEGMENTS, len(chosen)]
        labels = {f"{kind}_{m}": shape for kind in ("dense", "pseudo") for m in ("audio", "visual")}
        spec = DataSpec(
            name=f"{store}-synthetic",
            task="avvp",
            classes=[names[c] for c in chosen],
            features=FeatureSpec(audio_dim=128, visual_dim=2048, motion_dim=512),
            labels={"weak": [len(chosen)], **labels},
            label_dtypes=dict.fromkeys(["weak", *labels], "uint8"),
            synthetic=True,
        )
        with StoreWriter(folder / store, spec) as writer:
            for row, (split, maps, latent, rng) in enumerate(clips):
                columns = {"row": np.array([row]), "clip_id": [f"{store}{row:05d}"]}
                for name, (modality, width, _) in OUTPUTS.items():
                    noise = rng.standard_normal((SEGMENTS, width), dtype=np.float32)
                    columns[name] = world.observations[name](
                        latent[modality], noise, constants.pixel_noise
                    )[None]
                for modality, found in maps.items():
                    values = found[None][..., chosen].astype(np.uint8)
                    columns |= {f"dense_{modality}": values, f"pseudo_{modality}": values}
                both = np.maximum(columns["dense_audio"], columns["dense_visual"])
                writer.add(split, {**columns, "weak": both.max(axis=1)})


def train(out: Path, store: Path, decoder: str, *flags: str) -> Path:
    """Train a run, unless it is finished, and return its folder."""
    common = ["--task", "avvp", "--encoder", "han", "--decoder", decoder, "--data", str(store)]
    common += [*SMALL, *OWN.get(decoder, [])]
    quiet = ["--output-dir", str(out), "--cpu", "--threads", "1", "--no-save-plots"]
    if not (out / "results.json").is_file() and avplatform(["train", *common, *quiet, *flags]):
        raise SystemExit(f"{out} failed")
    if not (out / "results.json").is_file():
        raise SystemExit(f"{out} was stopped")
    return out


def curve(run: Path) -> list[tuple[int, float]]:
    """Return the steps and the scores of a run's validations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r[METRIC]) for r in records if r["event"] == "epoch"]


def first_step(run: Path, target: float) -> int | None:
    """Return the step of the first validation that reaches a score."""
    return next((step for step, score in curve(run) if score >= target), None)


def best(run: Path) -> float:
    return max(score for _, score in curve(run))


def row(kind: str, rate: str, runs: list[Path], new: list[Path]) -> str:
    """Return the line of a start and a learning rate; `new` sets the targets, seed by seed."""
    seconds = [json.loads((r / "results.json").read_text("utf-8"))["seconds"]["cpu"] for r in runs]
    cells = [kind, rate, ", ".join(f"{best(run):.1f}" for run in runs)]
    for share in SHARES:
        pairs = [
            (first_step(run, share * best(other)), first_step(other, share * best(other)))
            for run, other in zip(runs, new, strict=True)
        ]
        ratios = [a / b for a, b in pairs if a is not None and b is not None]
        mean = f"{statistics.mean(ratios):.2f}" if len(ratios) == len(pairs) else "-"
        cells += [", ".join(str(a or "never") for a, _ in pairs), mean]
    return f"| {' | '.join([*cells, f'{statistics.mean(seconds):.0f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--decoder", default="mmil", choices=["leap", "mmil"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", nargs="+", default=["5e-4", "1e-3"])
    parser.add_argument("--scales", nargs="+", default=["0.5", "1"], help="values of --init-scale")
    args = parser.parse_args()
    decoder, data = args.decoder, args.out / "data"
    if not (data / "six").is_dir():
        make_stores(data)
    source = train(args.out / f"{decoder}-many", data / "many", decoder, *MANY)
    kinds = {"new": []} | {
        f"init-scale {scale}": ["--init-from", str(source), "--init-scale", scale]
        for scale in args.scales
    }
    runs: dict[str, dict[str, list[Path]]] = {}
    for rate in args.rates:
        for kind, flags in kinds.items():
            own = ["--optim.lr", rate, *SIX, *flags]
            runs.setdefault(kind, {})[rate] = [
                train(args.out / f"{decoder}-{kind.replace(' ', '-')}-{rate}-{seed}",
                      data / "six", decoder, "--seed", str(seed), *own)
                for seed in range(1, args.seeds + 1)
            ]  # fmt: skip
    chosen = max(args.rates, key=lambda rate: sum(best(run) for run in runs["new"][rate]))
    print(f"\nHAN + {decoder}, SYNTHETIC features; seeds in order; the targets are the best scores "
          f"of the new models with learning rate {chosen}\n")  # fmt: skip
    print("| start | learning rate | best score | steps to the target | share of the new model's "
          "| steps to 90 % of it | share | CPU s of a run |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for kind, by_rate in runs.items():
        for rate, found in by_rate.items():
            print(row(kind, rate, found, runs["new"][chosen]))


if __name__ == "__main__":
    main()
