"""Runs of the systems of video parsing: killed ones end as others, and no pass leaves a trace."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from avplatform.cli import main
from avplatform.config.presets import list_presets
from avplatform.data import open_data
from avplatform.tasks.avvp.refinements import NoiseRatios, RefinedLabels
from tests.end_to_end.test_runs import same, train, train_until_killed, weights

HEADS = ["--encoder-config.heads", "2"]
GROUP = ["--decoder-config.heads", "2", "--decoder-config.hidden", "8",
         "--decoder-config.token-hidden", "4", "--decoder-config.layers", "1"]  # fmt: skip
GUIDES = ["--task-config.guide-width", "16"]
TOKENS = ["--decoder-config.token-width", "4", "--decoder-config.hidden", "4"]
SYSTEMS = {
    "han-mmil-avvp-weak": [],
    "ma-mmil-avvp-weak": ["refined"],
    "jomold-estimator-mmil-avvp-weak": [],
    "jomold-mmil-avvp-weak": ["noise-ratios"],
    "han-cvcms-avvp-weak": ["refined", *TOKENS],
    "han-cmpae-avvp-weak": ["noise-ratios"],
    "bps-mmil-avvp-weak": [],
    "mgn-group-avvp-weak": [*HEADS, *GROUP],
    "dhhn-mmil-avvp-weak": GUIDES,
    "dhhn-refined-mmil-avvp-weak": ["refined", *GUIDES],
    "mmpyr-mmil-avvp-weak": HEADS,
    "valor-mmil-avvp": [],
    "mmpyr-leap-avvp": [*HEADS, "--decoder-config.heads", "2", "--decoder-config.hidden", "8"],
}

QUICK = ("han-cmpae-avvp-weak", "dhhn-refined-mmil-avvp-weak")  # thresholds; batch norms, guides


@pytest.fixture(scope="module")
def files(small_stores, tmp_path_factory):
    """Refined labels that drop a third of all labels, and ratios that drop more than half."""
    folder = tmp_path_factory.mktemp("refinements")
    data = open_data(small_stores["avvp"], task="avvp")
    train_split, rng = data.split("train"), np.random.default_rng(1)
    weak = np.array(train_split.labels("weak"), dtype=bool)
    keep = [~(weak & (rng.random(weak.shape) < 0.33)) for _ in range(2)]
    classes, about = tuple(data.spec.classes), {"data_checksum": data.checksum}
    refined = RefinedLabels(classes, tuple(train_split.clip_ids), *keep, about)
    refined.save(folder / "refined.json")
    ratios = NoiseRatios(classes, *np.full((2, len(classes)), 0.67), about)
    ratios.save(folder / "noise-ratios.json")
    assert all(values.sum() > 4 for values in refined.dropped().values())
    return folder


def flags_of(preset, files):
    """The flags of a small run; a word without dashes names a file of refinements."""
    flags = ["--preset", preset, "--epochs", "4", "--checkpointing.every", "2", "--no-save-plots"]
    for flag in SYSTEMS[preset]:
        is_file = flag in ("refined", "noise-ratios")
        flags += [f"--task-config.{flag}", str(files / f"{flag}.json")] if is_file else [flag]
    return flags


def test_every_system_of_video_parsing_is_here():
    presets = {name for name in list_presets() if "-avvp" in name}
    plain = {name.removesuffix("-official").removesuffix("-paper") for name in presets}
    systems = {name.partition("-avvp")[0] for name in plain}
    ours = {name.partition("-avvp")[0] for name in SYSTEMS}
    later = {s for s in systems if "-leap" in s or "-dch" in s or s.startswith("valorplus")}
    assert systems - later <= ours | {"mgn-mmil"} and ours <= systems


@pytest.mark.parametrize(
    "preset",
    [pytest.param(p, marks=() if p in QUICK else pytest.mark.slow) for p in SYSTEMS],
)
def test_a_killed_run_of_each_system_ends_with_the_same_bits(small_stores, files, tmp_path, preset):
    """It dies in the third of four epochs, where labels are dropped, clips mixed, counts known."""
    store, flags = small_stores["avvp"], flags_of(preset, files)
    assert train("avvp", store, tmp_path / "whole", *flags) == 0
    train_until_killed("avvp", store, tmp_path / "killed", *flags, steps=8)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert same(weights(whole), weights(killed))
    last = [sorted((run / "checkpoints" / "12").glob("*.safetensors")) for run in (whole, killed)]
    assert last[0] and [file.name for file in last[0]] == [file.name for file in last[1]]
    assert all(same(load_file(a), load_file(b)) for a, b in zip(*last, strict=True))
    records = [list(map(json.loads, (run / "metrics.jsonl").open())) for run in (whole, killed)]
    assert [r["resumed_from_step"] for r in records[1] if r["event"] == "resume"] == [8]
    steps = [[{k: v for k, v in r.items() if k != "time"} for r in run if r["event"] == "step"]
             for run in records]  # fmt: skip
    assert steps[0] == steps[1] and len(steps[0]) == 12
    results = [json.loads((run / "results.json").read_text()) for run in (whole, killed)]
    assert results[0]["test"] == results[1]["test"]
    assert results[0].get("settled") == results[1].get("settled")
    assert ("settled" in results[0]) == (preset == "han-cmpae-avvp-weak")
    configs = [json.loads((run / "model" / "config.json").read_text()) for run in (whole, killed)]
    assert configs[0] == configs[1]


def test_a_pass_that_drops_nothing_leaves_batch_norms_and_weights_as_they_were(
    small_stores, files, tmp_path
):
    """The ranking pass in training mode would move the statistics; counts run such a pass too."""
    store = small_stores["avvp"]
    classes = open_data(store, task="avvp").spec.classes
    zero = np.zeros(len(classes))
    NoiseRatios(tuple(classes), zero, zero, {}).save(tmp_path / "zero.json")
    flags = ["--encoder", "dhhn", "--decoder", "mmil", "--supervision", "weak", "--epochs", "2",
             "--encoder-config.dropout", "0", "--no-save-plots"]  # fmt: skip
    denoised = ["--task-config.denoise", "self", "--task-config.denoise-warm-up", "off",
                "--task-config.noise-ratios", str(tmp_path / "zero.json")]  # fmt: skip
    counted = ["--task-config.count-terms", "add", "--task-config.count-weight", "0"]
    for name, more in (("plain", []), ("denoised", denoised), ("counted", counted)):
        assert train("avvp", store, tmp_path / name, *flags, *more) == 0
    plain = weights(tmp_path / "plain")
    assert any(name.endswith("running_var") for name in plain)
    assert same(plain, weights(tmp_path / "denoised"))
    assert same(plain, weights(tmp_path / "counted"))
