"""docs/cells.md: the matrix as a page, rendered from the tables that also feed the command line."""

from __future__ import annotations

from avplatform.catalogue.cells import (
    DECISIONS,
    HEADS,
    LOSSES,
    OURS,
    READS,
    Cell,
    cells,
)
from avplatform.catalogue.figures import (
    cell_cost,
    cell_headline,
    in_billions,
    in_millions,
    short_presets,
)

TASKS = {
    "avvp": "Video parsing (avvp, LLP)",
    "avel": "Event localization (avel, AVE)",
}

HEAD = """\
# What each cell computes, and who published it

Every encoder meets every decoder on both tasks, under two kinds of supervision: {count} cells. A **published** cell computes
what a paper defines; the others are **ours**: no paper defines them, and they are defined here. `avplatform info CELL` says
all this of one cell, with its configuration and every published figure.

This page is what `avplatform list --markdown` prints; a test holds it so. Parameters and FLOPs are those of the cell's default
options on the real features (AVE: 128 and 7x7x512 a segment, LLP: 128, 2048 and 512), for one clip of ten seconds; FLOPs are
twice the multiply-accumulates of matrix products, convolutions and LSTMs in one forward pass. Figures are the papers', in
percent: accuracy (avel), segment-level and event-level Type@AV (avvp). * marks figures whose source states no supervision.
"""

LEAP_ON_AVEL = """\
**LEAP on AVEL.** 29 texts, the events and "background"; audio and visual streams with weights of their own; segment and
video logits are the mean of both (`combine`). Full: cross entropy (or binary, `segment_loss`) on segments and binary cross
entropy on which labels occur in the clip; decision: the best of 29. Weak: binary cross entropy on the video logit and on the
pooled segment probability; decision: the clip's best event wherever it scores at least as high as background, and background
for the whole clip where its video logit is the largest. With `label_set: events` there are 28 texts and a segment is
relevant where the log-sum-exp of its class logits is positive. A learned gain on the segment scores is on by default here
(nothing was published), in the weak setting a learned bias too; both are off on AVVP. Behind CMBS, fully supervised, its
losses on the gate and on the class scores of its queries stay; behind PSP, its pair loss.
"""


def render() -> str:
    """Return the page."""
    every = [cell for cell in cells() if cell.status != "outside"]
    parts = [HEAD.format(count=len(every))]
    for task, title in TASKS.items():
        chosen = [cell for cell in every if cell.task == task]
        parts += [
            f"## {title}\n",
            _overview(chosen),
            "### Published\n",
            _published(chosen),
            "### Ours\n",
            _ours(task, chosen),
        ]
        if task == "avel":
            parts.append(LEAP_ON_AVEL)
        parts += ["### Losses and decisions\n", _rules(task)]
        parts += ["### What the encoders read\n", _reads(task)]
    return "\n".join(parts)


def _overview(chosen: list[Cell]) -> str:
    rows = []
    for cell in chosen:
        cost, figure = cell_cost(cell), cell_headline(cell)
        assert cost is not None
        mark = r"\*" if figure and figure.marked else ""
        shown = f"{figure.numbers}{mark} ({figure.source})" if figure else ""
        presets = "<br>".join(f"`{name}`" for name in short_presets(cell.presets)).replace(
            "|", "\\|"
        )
        millions, billions = in_millions(cost.total_parameters), in_billions(cost.total_flops)
        rows.append(
            [f"`{cell.name}`", cell.status, f"{millions} M", f"{billions} G", shown, presets]
        )
    return _table(["cell", "by", "parameters", "FLOPs", "published figure", "presets"], rows)


def _published(chosen: list[Cell]) -> str:
    rows = [
        [
            f"`{cell.name}`",
            cell.source,
            cell.default,
            f"`{cell.exact}`" if cell.exact else "none: no script was released",
        ]
        for cell in chosen
        if cell.status == "published"
    ]
    return _table(["cell", "source", "what the defaults do", "as published"], rows)


def _ours(task: str, chosen: list[Cell]) -> str:
    """Return what the platform defines, a decoder, and where cells differ from it."""
    by_text: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in chosen:
        if cell.status == "ours":
            by_text.setdefault((cell.decoder, cell.default, cell.figures or ""), []).append(cell)
    rows = []
    for (decoder, text, figures), same in by_text.items():
        names = {
            encoder: [c.supervision for c in same if c.encoder == encoder]
            for encoder in dict.fromkeys(c.encoder for c in same)
        }
        who = "; ".join(
            f"{encoder} ({', '.join(supervisions)})" for encoder, supervisions in names.items()
        )
        rows.append([decoder, who, text, figures])
    rows.sort(key=lambda row: list(OURS).index((task, row[0])))
    return _table(["decoder", "behind", "what it is", "figures"], rows)


def _rules(task: str) -> str:
    rows = []
    for (of, decoder, supervision), loss in LOSSES.items():
        if of != task:
            continue
        decision = DECISIONS.get(
            (task, decoder, supervision), DECISIONS.get((task, decoder, "any"), "")
        )
        own = [
            encoder
            for encoder, s in HEADS
            if s == supervision and (task, decoder) == ("avel", "dch")
        ]
        rows.append(
            [
                f"{decoder}{' (all but ' + ', '.join(own) + ')' if own else ''}",
                supervision,
                loss,
                decision,
            ]
        )
        rows += [
            [f"dch behind {encoder}", supervision, *HEADS[encoder, supervision]] for encoder in own
        ]
    text = _table(["decoder", "supervision", "loss, by default", "decision, by default"], rows)
    if task == "avel":
        text += "\nPSP under full supervision adds 100 AVPS, the loss on the similarity of the streams, with every decoder.\n"
    return text


def _reads(task: str) -> str:
    return _table(
        ["encoder", "reads"],
        [[encoder, text] for (encoder, of), text in READS.items() if of == task],
    )


def _table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
