"""LEAP and MMIL trained on video labels only: do they learn when events happen?

`python -m benchmarks.weak_labels --llp STORE --real STORE --out runs/weak_labels`

The stores are one of `avplatform data simulate --task avvp --limit 1000` (SYNTHETIC features) and
the one that `python -m examples.real_media.run` leaves (composed of real photographs and sounds).
All rows of a store have the same small widths, steps, batch size and schedule, one thread and
float32. Every row is trained with each learning rate on the first seed; the one that scores best on
validation is kept for the other seeds (ablations: one rate). Test is scored once, at the end of
each run. The script can be stopped and started again: a finished run is not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avplatform.config.values import merge
from avplatform.evaluation.markdown import markdown_table
from avplatform.models.files import write_atomic
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.sweep import PlannedRun, slug
from benchmarks.rows import anchors, best_rate, cpu_seconds, finished, options_of, scores, train
from examples.real_media.report import spread

RATES = (5e-4, 1e-3)
EPOCHS = {"llp": 20, "real": 30}
TITLES = {"llp": "simulated LLP (SYNTHETIC)", "real": "composed real content"}
FIGURES = ("segment_Type@AV", "event_Type@AV")
SMALL = {"width": 64, "hidden": 128, "heads": 4}
ENCODERS: dict[str, dict[str, Any]] = {
    "HAN": {"encoder": "han", "encoder_config": SMALL},
    "MM-Pyr": {"encoder": "mmpyr", "encoder_config": {**SMALL, "levels": 3}},
}
RELEASED = {"form": "released", "centre_labels": False, "hidden": 128, "heads": 4}
"""LEAP's decoder as released, at a small width."""
PLAIN = {**RELEASED, "score_gain": None, "score_bias": None}


def leap(decoder_config: dict[str, Any], **task_config: str) -> dict[str, Any]:
    """Return the options of a row of LEAP."""
    return {"decoder": "leap", "decoder_config": decoder_config, "task_config": task_config}


DECODERS: dict[str, dict[str, Any]] = {
    "MMIL": {"decoder": "mmil"},
    "LEAP pooled (default)": leap({"heads": 4}),
    "LEAP released, repeated labels": leap(PLAIN),
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "LEAP released with gain and bias, objective mil (linear)": leap(RELEASED, objective="mil"),
    "LEAP pooled without centred labels": leap({"heads": 4, "centre_labels": False}),
}
"""Rows of HAN on simulated LLP alone, with the last of the learning rates."""
RUN = {
    "task": "avvp", "supervision": "weak", "batch_size": 16, "validate_every": 2,
    "optim": {"clip_norm": 0.5}, "precision": "no", "cpu": True, "save_plots": False,
}  # fmt: skip
"""Options of every run."""


def planned(store: str, data: Path, row: tuple[str, str], rate: float, seed: int) -> PlannedRun:
    """Return one run of a row, which is an encoder's and a decoder's name."""
    encoder, decoder = row
    options = merge(merge(RUN, ENCODERS[encoder]), {**DECODERS, **ABLATIONS}[decoder])
    own = {"optim": {"lr": rate}, "data": str(data), "seed": seed, "epochs": EPOCHS[store]}
    name = f"{store}_{slug(f'{encoder} {decoder}'.lower())}_rate-{rate:g}_seed-{seed}"
    return PlannedRun(name=name, options=merge(options, own))


def table(store: str, rows: dict[tuple[str, str], list[Entry]]) -> str:
    """Return the Markdown table of a store: the rows, and answers that need no model."""
    lines = []
    for (encoder, decoder), entries in rows.items():
        validation = spread([e.results["selection"]["value"] for e in entries])
        rate = f"{entries[0].options['optim']['lr']:g}"
        told = [validation, str(len(entries)), rate, cpu_seconds(entries)]
        lines.append([f"{encoder} + {decoder}", *scores(entries, FIGURES), *told])
    first = next(iter(rows.values()))[0]
    lines += [[*line, *[""] * 4] for line in anchors(first, FIGURES)]
    head = ["segment Type@AV", "event Type@AV", "validation segment"]
    return markdown_table([TITLES[store], *head, "seeds", "lr", "CPU s"], lines)


def main() -> int:
    """Train all that is missing, and print the tables."""
    parser = options_of(__doc__)
    parser.add_argument("--llp", type=Path, help="store of simulated LLP")
    parser.add_argument("--real", type=Path, help="store of the composed real content")
    args = parser.parse_args()
    tables = []
    for store, data in (("real", args.real), ("llp", args.llp)):
        if data is None:
            continue
        rows = [(encoder, decoder) for encoder in ENCODERS for decoder in DECODERS]
        more = [("HAN", decoder) for decoder in ABLATIONS if store == "llp"]
        train([planned(store, data, row, rate, 1) for row in rows for rate in RATES], args)
        chosen = {}
        for row in rows:
            tried = [planned(store, data, row, rate, 1) for rate in RATES]
            if (best := best_rate(finished(tried, args.out))) is not None:
                chosen[row] = best
        chosen |= dict.fromkeys(more, RATES[-1])
        runs = {
            row: [planned(store, data, row, chosen[row], s) for s in range(1, args.seeds + 1)]
            for row in chosen
        }
        train([run for group in zip(*runs.values(), strict=True) for run in group], args)
        done = {row: finished(group, args.out) for row, group in runs.items()}
        tables.append(table(store, {row: entries for row, entries in done.items() if entries}))
        write_atomic(args.out / "tables.md", "\n\n".join(tables) + "\n")
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
