"""How the blocks of each page are run: what its folder holds, and what is not run, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from tests.models.cells import build
from tests.pages.places import SMALL, STEPS

NOT_RUN = {
    r"pip install": "fetches packages; .ci/run installs the project as the README says",
    r"(python -m venv|\. |pre-commit|pytest|ruff|\.ci/)": "what developers and .ci/run do",
    r"hf download": "fetches weights from the Hub",
    r"(npm pack|tar xzf) ": "fetches a package, and unpacks it",
    r"(AVP_LLP_DIR=\S+ )?python -m (benchmarks\b|examples\.)": "takes hours, or real photographs "
    "and sounds",
    r"avplatform doctor --online": "asks the Hub; tests/test_doctor.py does so of a stand-in",
    r"avplatform (push|collection|data push|space push) ": "needs the Hub; tests/hub has a double",
    r"avplatform (data verify|train|predict) .*owner/": "reads from the Hub; so do tests/hub",
    r"avplatform extract .* --weights auto": "fetches weights; tests/features/test_fetch.py does",
    r"avplatform embed-labels .*(sentence|glove):": "needs a package that is optional",
    r"avplatform embed-labels 'siren,dog barking'$": "needs a package that is optional",
    r"avplatform pseudo-label .*--(visual-features|frames)": "needs CLIP and CLAP; "
    "tests/pseudo_labels has small ones",
    r"avplatform reproduce ": "trains for hours; tests/ledger runs the command for a few steps",
    r"avplatform train --preset mmpyr-leap-avvp-official": "trains for hours, and on vectors that "
    "are not shipped",
    r"python train.py .*--labels.embeddings joined:": "needs the weights of CLIP and CLAP",
    r"avplatform score .* --collar": "needs sed_eval, which is optional; tests/evaluation has it",
    r"avplatform sweep .* --out ": "trains for hours; tests/ledger/test_sweep.py runs sweeps",
    r"avplatform (demo|board)\b": "serves a page until Ctrl-C; tests/demo and test_board do",
    r"docker ": "needs Docker",
    r"(avplatform .* --engine ray|srun )": "starts or needs a cluster; tests/scale has one",
    r"torchrun ": "starts two processes; tests/end_to_end does so",
    r"avplatform convert ": "needs a published checkpoint; tests/convert makes some",
}
"""By the pattern of a command, why it is not run; options of such commands are parsed."""

SHORTER = {
    "train": STEPS,
    "extract": SMALL,
    "predict": "--cpu",
    "eval": "--cpu",
    "data simulate": "--limit 40",
}
"""Flags that are added, so that a command takes seconds."""

ELSEWHERE = {"docs/extend.md": "tests/test_docs.py", "docs/own_data.md": "tests/test_own_data.py"}
"""Pages whose blocks another test runs, and its file."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """How the blocks of a page are run."""

    places: Mapping[str, str] = field(default_factory=dict)
    """what lies in its folder: names of `places.MADE` by path"""
    names: Callable[[], dict[str, object]] | None = None
    """names that its Python blocks take as given"""
    instead: Mapping[str, str] = field(default_factory=dict)
    """parts of its Python blocks, and what is run in their place"""
    shorter: Mapping[str, str] = field(default_factory=dict)
    """flags that are added to a command, in place of those of SHORTER"""
    codes: Mapping[str, int] = field(default_factory=dict)
    """exit codes of commands that find a difference"""
    slow: bool = True
    """whether its commands take more than a few seconds"""


def clip(audio: tuple[int, ...], visual: tuple[int, ...]) -> Callable[[], dict[str, object]]:
    """Return what makes random features of two clips, as `audio` and `visual`."""
    return lambda: {"audio": torch.randn(2, 10, *audio), "visual": torch.randn(2, 10, *visual)}


GLOVE = "\n".join(f"{word}{' 0.5' * 50}" for word in ("siren", "dog", "barking"))
SWEPT = "data: demo, max_steps: 2, cpu: true, save_plots: false"
RUN = {
    "docs/api/models.md": Page(slow=False),
    "docs/api/data.md": Page(slow=False),
    "docs/api/parts.md": Page(slow=False),
    "docs/api/video.md": Page(slow=False),
    "docs/doctor.md": Page(),
    "README.md": Page(
        places={
            "owner/name": "run/model",
            "LLP_DIR": "llp",
            "VIDEO": "video",
            "holiday.mp4": "video",
            "VIDEOS": "own/videos",
            "events.csv": "own/events.csv",
            "predictions/events.csv": "own/events.csv",
            "runs/RUN": "run",
            "runs/ONE": "weak run",
            "runs/OTHER": "other run",
            "sweep.yaml": f":base: {{task: avvp, decoder: mmil, {SWEPT}}}\nseeds: 2\n",
        },
        names=clip((128,), (7, 7, 512)),
        instead={"max_steps=100": "max_steps=2, cpu=True"},
    ),
    "docs/index.md": Page(places={"VIDEO": "video"}),
    "docs/data.md": Page(
        places={
            "LLP_DIR": "llp",
            "AVE_DIR": "ave",
            "data/mine": "store",
            "events.csv": "own/events.csv",
            "data/ovave": "ovavel",
            "FILE.csv": "llp/AVVP_eval_audio.csv",
        },
    ),
    "docs/evaluation.md": Page(
        places={
            "RUN": "weak run",
            "OTHER": "other run",
            "LLP_DIR": "llp",
            "predictions/events.csv": "own/events.csv",
            "theirs.csv": "own/events.csv",
            "events.csv": "own/events.csv",
        },
    ),
    "docs/scale.md": Page(),
    "docs/features.md": Page(
        places={
            "VIDEOS/one.mp4": "video",
            "LLP_VIDEOS": "llp videos",
            "LLP_DIR": "llp",
            "holiday.mp4": "video",
            "video.mp4": "video",
        },
        shorter={"extract": "--cpu"},
    ),
    "docs/convert.md": Page(places={"models/han": "weak run/model", "LLP_DATA": "avvp"}),
    "docs/where.md": Page(
        places={"runs/RUN": "run", "runs/ONE": "weak run", "runs/OTHER": "other run"}
    ),
    "docs/hub.md": Page(
        places={"owner/name": "run/model"},
        instead={
            'revision="v1"': "revision=None",
            '("mmpyr-leap.avvp", pretrained': '("han-leap.avvp", pretrained',
        },
    ),
    "docs/labels.md": Page(
        places={"texts.txt": ":dog\nviolin\n", "glove-6b.txt": f":{GLOVE}"},
        names=lambda: clip((6,), (2, 3, 8))() | {"model": build("avel", "ave", "leap")},
    ),
    "docs/ovavel.md": Page(
        places={"OVAVE_DIR": "ovave", "data/ovave": "ovavel", "data/ave": "avel"}
    ),
    "docs/pseudo_labels.md": Page(
        places={
            "": "pseudo",
            "data/llp": "avvp",
        },
    ),
    "docs/reproduce.md": Page(places={"data/llp": "avvp"}),
    "docs/simulation.md": Page(
        places={"LLP_DIR": "llp", "AVE_DIR": "ave", "OVAVE_DIR": "ovave"},
    ),
    "docs/systems.md": Page(places={"LLP_DIR": "llp"}),
    "docs/training.md": Page(
        places={
            "mydata": "avvp",
            "llp": "avvp",
            "DIR": "avvp",
            "runs/llp": "weak run",
            "models/han": "weak run/model",
        },
    ),
    "docs/training_free.md": Page(
        places={"street.mp4": "video", "VIDEOS": "llp videos", "LLP_DIR": "llp"},
        shorter={"extract": "--cpu"},
    ),
    "docs/weak_labels.md": Page(places={"STORE": "avvp", "LLP_DIR": "llp"}),
    "docs/zero_shot.md": Page(
        places={
            "street.mp4": "video",
            "runs/mine": "run",
            "texts.txt": ":train horn\nman speaking\n",
            "LLP_DIR": "llp",
            "AVE_DIR": "ave",
            "RUN": "held run",
            "out-llp/held_seed-1": "held run",
        },
    ),
    "docs/export.md": Page(places={"runs/mine": "run", "holiday.mp4": "video"}),
    "docs/predict.md": Page(
        places={
            "runs/mine": "run",
            "data/mine": "store",
            "events.csv": "own/events.csv",
            "saved/events.csv": ":video,stream,label,onset,offset\nholiday.mp4,visual,Dog,2,7\n",
            "clips": "own/videos",
        }
        | dict.fromkeys(("holiday.mp4", "concert.webm", "street.mp4"), "video")
        | dict.fromkeys(("one.mp4", "two.mp4"), "video"),
        shorter={"extract": f"{SMALL} --split 0.5,0.25,0.25"},
    ),
}
