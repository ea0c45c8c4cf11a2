"""From forty rendered videos and one csv to models, by the documented commands.

    python -m benchmarks.own_videos own --weights WEIGHTS_FOLDER

Renders videos (SYNTHETIC) with six classes that are heard, seen, or both, whose events begin and
end at fractions of seconds, and a table of these events; extracts features (`--backbones lite` with
its published weights, unless `--extract` says otherwise); and trains, for every seed, models on the
times of the events and on video labels alone, with nothing but the documented flags. The seed
decides the splits (of the videos) and the training. The table holds segment Type@AV of the test
split, beside that of the true labels of a clip in all its segments. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

from avplatform.cli import main as main_of_avplatform
from tests.own_videos import make_videos

METRIC = "segment_Type@AV"
SPLIT = "0.6,0.15,0.25"
ROWS = {
    "times": ["--supervision", "pseudo"],
    "video labels": ["--supervision", "weak"],
}
"""What a model is trained with, and the flags for it."""


def avplatform(*args: str) -> None:
    """Run a command."""
    print("$ avplatform", *args, flush=True)
    if code := main_of_avplatform(list(args)):
        raise SystemExit(code)


def train(name: str, *flags: str) -> dict:
    """Return the results of a run, which is trained if it is not finished."""
    file = Path("runs") / name / "results.json"
    if not file.is_file():
        common = ["--task", "avvp", "--encoder", "han", "--cpu", "--threads", "1"]
        avplatform("train", *common, *flags, "--output-dir", f"runs/{name}")
    if not file.is_file():
        raise SystemExit(f"{name} was stopped")
    return json.loads(file.read_text(encoding="utf-8"))


def mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", help="folder of the weights of the feature networks")
    parser.add_argument(
        "--seconds", nargs=2, type=float, default=(20, 40), help="shortest and longest video"
    )
    parser.add_argument("--extract", default="--backbones lite", help="flags of extract")
    parser.add_argument("--decoders", nargs="+", default=["mmil", "leap"])
    parser.add_argument("--kinds", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--flags", default="", help="further flags of train")
    args = parser.parse_args()
    if not (args.folder / "events.csv").is_file():
        make_videos(args.folder, seconds=tuple(args.seconds))
    weights = ["--weights", str(Path(args.weights).resolve())] if args.weights else []
    os.chdir(args.folder)
    if not Path("data/s0").is_dir():
        flags = ["--events", "events.csv", "--split", SPLIT, *args.extract.split(), *weights]
        avplatform("extract", "videos", "--out", "data/s0", *flags, "--cpu")
    rows: dict[tuple[str, str], list[dict]] = {}
    for seed in range(args.seeds):
        store = f"data/s{seed}"
        if not Path(store).is_dir():
            again = ["--events", "events.csv", "--split", SPLIT, "--seed", str(seed)]
            avplatform("data", "import", "table", "data/s0", *again, "--out", store)
        for decoder in args.decoders:
            for kind in args.kinds:
                name = f"{decoder}-{kind.replace(' ', '-')}-{seed}"
                own = ["--decoder", decoder, "--data", store, "--seed", str(seed + 1)]
                content = train(name, *own, *ROWS[kind], *args.flags.split())
                rows.setdefault((decoder, kind), []).append(content)
    first = next(iter(rows.values()))
    clips = ", ".join(str(content["details"]["test"]["clips"]) for content in first)
    print(f"\n{args.seeds} seeds, with {clips} test clips; segment Type@AV in percent\n")
    print("| HAN and | trained with | Type@AV | of each seed | everywhere | of each seed | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for (decoder, kind), found in rows.items():
        own = [content["test"][METRIC] for content in found]
        anchors = [content["details"]["test"]["anchors"] for content in found]
        rival = [each["video_labels_everywhere"][METRIC] for each in anchors]
        seconds = statistics.mean(content["seconds"]["cpu"] for content in found)
        cells = [f"{mean(v)} | {', '.join(f'{x:.1f}' for x in v)}" for v in (own, rival)]
        print(f"| {decoder.upper()} | {kind} | {' | '.join(cells)} | {seconds:.0f} |")
    model = f"runs/{args.decoders[0]}-{args.kinds[0].replace(' ', '-')}-0"
    avplatform(
        "predict", "videos/clip00.mp4", "--model", model, "--out", "found", "--cpu", *weights
    )


if __name__ == "__main__":
    main()
