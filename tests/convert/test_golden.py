"""Checkpoints in the authors' formats become model folders that meet the golden outputs."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.data.adapters.registry import make_task
from avplatform.models.av_model import AVModel
from avplatform.tasks.registry import task_of_model
from tests.convert.official_files import CASES, FORMS, golden, save_as


def one_form(name, form):
    """Return a case; the two models that take seconds come in one form by default."""
    slow = name.startswith("mmpyr") and form != "zip"
    return pytest.param(name, form, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("name", "form"), [one_form(n, form) for n in CASES for form in FORMS])
def test_a_published_checkpoint_meets_the_golden_outputs(
    name, form, handlers, tmp_path, capsys, monkeypatch
):
    case, weights = golden(name)
    published, flags, class_path = CASES[name]
    monkeypatch.chdir(tmp_path)
    if "--label-embeddings" in flags:
        texts = case.input("label")[0] if case.has_input("label") else case.input("text")
        np.save("labels.npy", texts.numpy())
    file = save_as(form, weights, tmp_path / "checkpoint.pt", class_path)
    before = set(sys.modules)
    assert main(["convert", str(file), "--from", published, *flags, "--out", "model"]) == 0
    assert not [
        m
        for m in set(sys.modules) - before
        if m.split(".")[0] == class_path.split(".")[0] != "models"
    ]
    file.unlink()
    shown = capsys.readouterr().out
    if form == "module":
        assert f"whole module {class_path}" in shown
    if form == "data-parallel":
        assert "rounded from float64: no value changed" in shown
    handlers[name](case, model=AVModel.from_pretrained("model"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("han_mmil", {"supervision": "weak", "objective": "auto"}),
        ("ma_han", {"contrast": "ma", "global_target": "official", "gate": "modality"}),
        ("jomold_han", {"denoise": "self", "audio_weight": 2.0, "gate": "modality"}),
        ("cvcms_net", {"contrast": "cross_video", "global_target": "union", "gate": "global"}),
        ("valor_han_pre", {"supervision": "pseudo", "objective": "valor"}),
        (
            "cmpae_model",
            {
                "supervision": "weak",
                "gate": "modality",
                "threshold": 0.45,
                "visual_segment_threshold": 0.25,
                "visual_class_thresholds": [],
                "mutual_weight": 1.0,
                "contrast": "jomold",
                "denoise": "self",
            },
        ),
        ("ave_att", {"supervision": "full", "head_loss": "soft_margin"}),
        ("ave_att_weak", {"supervision": "weak", "head_loss": "soft_margin"}),
        ("ave_dmrn", {"supervision": "full", "head_loss": "soft_margin"}),
        ("dhhn_model", {"supervision": "weak", "gate": "modality", "guides": True}),
        ("mgn_model", {"supervision": "weak", "objective": "auto", "token_weight": 1.0}),
        ("psp_full", {"supervision": "full", "pair_target": "official", "head_loss": "ce"}),
        ("psp_weak", {"supervision": "weak", "weak_target": "prob", "head_loss": "bce"}),
        ("cmbs_full", {"supervision": "full", "gate_loss": "official"}),
        (
            "cmbs_weak",
            {"supervision": "weak", "weak_relevance": "official", "head_loss": "soft_margin"},
        ),
    ],
)
def test_the_folder_knows_classes_losses_and_decisions_as_published(name, wanted, tmp_path):
    case, weights = golden(name)
    published, flags, _ = CASES[name]
    file = save_as("zip", weights, tmp_path / "a.pt")
    assert (
        main(["convert", str(file), "--from", published, *flags, "--out", str(tmp_path / "m")]) == 0
    )
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert {key: config["task_config"][key] for key in wanted} == wanted
    classes = list(make_task(config["task"]).classes)
    assert config["classes"] == (classes[:28] if name == "cmbs_full" else classes)
    if config["task"] == "avvp":
        assert config["reference_order"] is True
        if "stacked" in config["encoder"]:
            assert config["encoder"]["stacked"] is (published in ("valor", "jomold", "cmpae"))
    model = AVModel.from_pretrained(tmp_path / "m")
    names = ("audio", "visual", "visual_st") if config["task"] == "avvp" else ("audio", "visual")
    decisions = task_of_model(model.config).decide(model(*(case.input(n) for n in names)).parse)
    if name == "cmbs_weak":  # as published: every segment counts as relevant
        assert all(len(set(clip)) == 1 for clip in decisions["segment"].tolist())
    assert all(torch.isfinite(value.float()).all() for value in decisions.values())


def test_a_checkpoint_of_cmpae_with_its_random_states_is_read(tmp_path, capsys):
    _, weights = golden("cmpae_model")
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "epoch": 7}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    content = {**states, "torch": torch.get_rng_state(), "model": weights, "optimizer": optimizer}
    torch.save(content, tmp_path / "best.pt")
    out = str(tmp_path / "model")
    assert main(["convert", str(tmp_path / "best.pt"), "--from", "cmpae", "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "ignored beside the weights: epoch, numpy, optimizer, python, torch" in shown
    assert "8 of which CMPAE (CVPR 2023) never reads" in shown
    model = AVModel.from_pretrained(out)
    assert torch.equal(model.decoder.absence.weight, weights["fc_prob_beta.weight"])


def test_the_streams_of_mmpyr_stand_in_the_slots_that_its_script_reads(tmp_path):
    from avplatform.hub.convert import published_labels
    from avplatform.models.official import read_official

    _, weights = golden("mmpyr_mmil")
    config = read_official("mmpyr", weights, published_labels("mmpyr")).config
    assert (
        config.encoder.official_slot_order,
        config.encoder.reference_order,
        config.reference_order,
    ) == (True, True, True)
    assert config.task_config["supervision"] == "weak"
