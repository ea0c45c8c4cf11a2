"""The systems of the paper's Table 4 on simulated LLP, trained from weak labels with equal steps.

`python -m benchmarks.systems --data STORE --out runs/systems`

STORE is one of `avplatform data simulate --task avvp --limit 2000` (SYNTHETIC features). Every row
has its system's losses, masks and decisions (the defaults of its preset), and the same width, batch
size, steps, schedule and optimiser. Rows with refined labels get them as published: a first model
is trained, asked, and trained again from the start; a row's steps are those of its last training.
Every row is trained with two learning rates on the first seed, and with a third one beyond the
better of them; the one that scores best on validation is kept for the other seeds. Test is scored
once, at the end of each run. The script can be stopped and started again: a finished run is not
repeated. Rows are worked off in order of seeds, so that the table can be printed at any time:
`--show`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.catalogue.published import REFINEMENTS
from avplatform.config.presets import preset_options
from avplatform.config.values import merge
from avplatform.evaluation.markdown import markdown_table
from avplatform.models.files import write_atomic
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.runner import PROGRAM, Job
from avplatform.sweeps.sweep import PlannedRun, slug
from benchmarks.rows import (
    anchors,
    best_rate,
    cost_of_all,
    cpu_seconds,
    finished,
    options_of,
    scores,
    train,
    work,
)

RATES = (1e-3, 2e-3)
EDGES = {1e-3: 5e-4, 2e-3: 4e-3}
"""The rate that is tried next where the best of `RATES` is the first or the last."""
FIGURES = (
    "segment_A", "segment_V", "segment_AV", "segment_Type@AV", "segment_Event@AV",
    "event_A", "event_V", "event_AV", "event_Type@AV", "event_Event@AV",
)  # fmt: skip
RUN: dict[str, Any] = {
    "batch_size": 32, "validate_every": 2, "patience": 0, "select_by": "segment_Type@AV",
    "ties": "first",
    "optim": {"name": "adam", "clip_norm": 1.0, "betas": (0.9, 0.999), "weight_decay": 0.0},
    "schedule": {"name": "late_decay", "after": 0.75},
    "precision": "no", "cpu": True, "save_plots": False,
}  # fmt: skip
"""Options of every run."""
SMALL: dict[str, dict[str, Any]] = {
    "han": {"width": 64, "hidden": 128, "heads": 4},
    "mmpyr": {"width": 64, "hidden": 128, "heads": 4, "levels": 3},
    "mgn": {"width": 64, "hidden": 128, "heads": 4},
    "dhhn": {"width": 64, "hidden": 128},
    "cvcms": {"token_width": 32, "hidden": 32},
    "group": {"hidden": 128, "heads": 4},
}
"""Small widths, by encoder or decoder."""
SHARE = {"decoder_config": {"clip_share": 0.3}}
SUBSETS = {**SHARE, "labels": {"asked_share": 0.5}}
SMALL_GUIDES = {"task_config": {"guide_width": 64}}


@dataclass(frozen=True, kw_only=True)
class System:
    """One row: a preset, options over it, and where its refined labels come from.

    Args:
        preset: the recipe; None for a cell without one.
        options: options over it.
        rule: "exchange", "noise-ratio" (both ask the model of `base`), "drop" or "" for none.
        base: the row whose run of the same seed is asked.
        shown: whether the table has it; bases alone are not systems.
    """

    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    rule: str = ""
    base: str = ""
    shown: bool = True


MA, JOMOLD = "MA's first model", "JoMoLD's estimator"
SYSTEMS: dict[str, System] = {
    "HAN": System(preset="han-mmil-avvp-weak"),
    "HAN, no visual Speech label": System(preset="han-mmil-avvp-weak", rule="drop"),
    MA: System(preset="ma-mmil-avvp-weak", shown=False),
    JOMOLD: System(preset="jomold-estimator-mmil-avvp-weak", shown=False),
    "CVCMS": System(preset="han-cvcms-avvp-weak"),
    "CVCMS, MA's refined labels": System(preset="han-cvcms-avvp-weak", rule="exchange", base=MA),
    "MA": System(preset="ma-mmil-avvp-weak", rule="exchange", base=MA),
    "JoMoLD": System(preset="jomold-mmil-avvp-weak", rule="noise-ratio", base=JOMOLD),
    "BPS (own design)": System(preset="bps-mmil-avvp-weak"),
    "MGN": System(preset="mgn-group-avvp-weak"),
    "DHHN": System(preset="dhhn-mmil-avvp-weak", options=SMALL_GUIDES),
    "DHHN, MA's refined labels": System(
        preset="dhhn-refined-mmil-avvp-weak", options=SMALL_GUIDES, rule="exchange", base=MA
    ),
    "CMPAE": System(preset="han-cmpae-avvp-weak", rule="noise-ratio", base=JOMOLD),
    "HAN + LEAP pooled": System(preset="han-leap-avvp-weak"),
    "HAN + LEAP pooled, clip share": System(preset="han-leap-avvp-weak", options=SHARE),
    "HAN + LEAP pooled, clip share, subsets": System(preset="han-leap-avvp-weak", options=SUBSETS),
    "HAN + LEAP pooled, MA's refined labels": System(
        preset="han-leap-avvp-weak", rule="exchange", base=MA
    ),
    "HAN + LEAP pooled, JoMoLD's denoising": System(
        preset="han-leap-avvp-weak",
        options={"task_config": {"denoise": "self"}},
        rule="noise-ratio",
        base=JOMOLD,
    ),
    "MM-Pyr": System(preset="mmpyr-mmil-avvp-weak"),
    "MM-Pyr + LEAP pooled": System(
        options={"task": "avvp", "encoder": "mmpyr", "decoder": "leap", "supervision": "weak"}
    ),
    "MM-Pyr + LEAP pooled, clip share": System(
        options={
            "task": "avvp",
            "encoder": "mmpyr",
            "decoder": "leap",
            "supervision": "weak",
            **SHARE,
        }
    ),  # fmt: skip
    "VALOR (pseudo-labels)": System(preset="valor-mmil-avvp"),
    "HAN + LEAP (pseudo-labels)": System(preset="han-leap-avvp"),
    "MM-Pyr + LEAP (pseudo-labels)": System(preset="mmpyr-leap-avvp"),
}


class Plan:
    """The runs of every row, rate and seed, and the jobs that refine labels between them."""

    def __init__(self, data: Path, out: Path, steps: int) -> None:
        self.data, self.out, self.steps = data, out, steps
        self.chosen: dict[str, float] = {}

    def run(self, name: str, rate: float, seed: int) -> PlannedRun:
        """Return one run of a row."""
        system = SYSTEMS[name]
        options = merge(merge({"preset": system.preset}, RUN), system.options)
        known = preset_options(system.preset) if system.preset else system.options
        options = merge(options, {"encoder_config": SMALL[known["encoder"]]})
        if (small := SMALL.get(known["decoder"])) is not None:
            options = merge(options, {"decoder_config": small})
        own = {"optim": {"lr": rate}, "data": str(self.data), "seed": seed}
        options = merge(options, {**own, "epochs": 10_000, "max_steps": self.steps})
        if system.rule:
            told = {REFINEMENTS.get(system.rule, "refined"): str(self.labels(name, seed))}
            options = merge(options, {"task_config": told})
        return PlannedRun(name=f"{slug(name.lower())}_rate-{rate:g}_seed-{seed}", options=options)

    def labels(self, name: str, seed: int) -> Path:
        """Return the file of the refined labels that a row's run trains on."""
        system = SYSTEMS[name]
        of = "visual-speech"
        if system.base:
            of = self.run(system.base, self.chosen[system.base], seed).name
        return self.out / "labels" / f"{system.rule}_{of}.json"

    def refining(self, name: str, seed: int) -> Job:
        """Return the job that makes the labels of a row."""
        system, file = SYSTEMS[name], self.labels(name, seed)
        command = [*PROGRAM, "pseudo-label", system.rule, "--data", str(self.data)]
        command += ["--out", str(file)]
        if system.base:
            base = self.run(system.base, self.chosen[system.base], seed).name
            command += ["--model", str(self.out / base), "--cpu", "--threads", "1"]
        else:
            command += ["--visual", "Speech"]
        return Job(name=f"labels {file.stem}", command=lambda: command, done=file.is_file)

    def best_rate(self, name: str) -> float | None:
        """Return the learning rate that is best on validation on the first seed, or None."""
        tried = [self.run(name, rate, 1) for rate in (*RATES, *EDGES.values())]
        return best_rate(finished(tried, self.out))

    def rows(self, seeds: int) -> dict[str, list[Entry]]:
        """Return the finished runs of every row at its chosen rate."""
        found = {}
        for name, system in SYSTEMS.items():
            if system.shown and name in self.chosen:
                runs = [self.run(name, self.chosen[name], s) for s in range(1, seeds + 1)]
                found[name] = finished(runs, self.out)
        return found


def table(rows: dict[str, list[Entry]]) -> str:
    """Return the Markdown table: the rows, and answers that need no model."""
    lines = []
    for name, entries in rows.items():
        rate = f"{entries[0].options['optim']['lr']:g}"
        told = [str(len(entries)), rate, cpu_seconds(entries)]
        lines.append([name, *scores(entries, FIGURES), *told])
    first = next(iter(rows.values()))[0]
    lines += [[*line, "", "", ""] for line in anchors(first, FIGURES)]
    head = [figure.replace("_", " ").replace("@AV", "") for figure in FIGURES]
    return markdown_table(["simulated LLP (SYNTHETIC)", *head, "seeds", "lr", "CPU s"], lines)


def main() -> int:
    """Train all that is missing, and print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="store of simulated LLP")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", nargs="+", default=list(SYSTEMS), help="names of rows")
    args = parser.parse_args()
    plan = Plan(args.data, args.out, args.steps)
    names = [n for n in SYSTEMS if n in args.only or any(SYSTEMS[o].base == n for o in args.only)]

    def train_with(name: str, rates: Sequence[float], seed: int) -> None:
        train([plan.run(name, rate, seed) for rate in rates], args)

    for seed in range(1, args.seeds + 1):
        for name in names:
            if not args.show and SYSTEMS[name].rule:
                work([plan.refining(name, seed)], args)
            if not args.show and seed > 1:
                train_with(name, [plan.chosen[name]], seed)
            elif not args.show:
                train_with(name, RATES, seed)
                best = plan.best_rate(name)
                train_with(name, [EDGES[best]] if best in EDGES else [], seed)
            if seed == 1 and (rate := plan.best_rate(name)) is not None:
                plan.chosen[name] = rate
    rows = {name: entries for name, entries in plan.rows(args.seeds).items() if entries}
    text = f"{table(rows)}\n\n{cost_of_all(args.out)}"
    write_atomic(args.out / "table.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
