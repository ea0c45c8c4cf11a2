"""Unseen classes that are named, scored among all classes: what is seen, and what is stacked."""

import json
from statistics import harmonic_mean

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.ovave.classes import EVENTS, UNSEEN
from avplatform.data.adapters.registry import make_task
from avplatform.hub.folder import model_folder
from avplatform.labels.held_out import without
from avplatform.labels.open import never_trained_on
from avplatform.models.av_model import AVModel

HELD = ["dog barking", "helicopter"]


@pytest.mark.parametrize("unseen", ["present", "plain"])
def test_what_a_bank_decides_is_not_stacked_among_all_classes_either(
    runs, tmp_path, capsys, unseen
):
    out = tmp_path / "eval.json"
    flags = ["--held-out", *HELD, "--among", "all", "--unseen", unseen, "--cpu"]
    assert main(["eval", runs["leap"], *flags, "--json", str(out)]) == 0
    content, shown = json.loads(out.read_text()), " ".join(capsys.readouterr().out.split())
    details = content["details"]["test"]
    assert ("stacking" in details) == (unseen == "plain")
    left_out = any("bank decides the unseen classes" in text for text in details["remarks"])
    assert left_out == (unseen == "present")
    found = content["generalised"]
    assert found["figure"] == "average"
    assert found["harmonic_mean"] == harmonic_mean([found["unseen"], found["seen"]])
    assert f"{found['seen']:.1f} on clips of other classes of the training" in shown


def test_clips_that_are_called_seen_are_of_classes_that_training_met(store, runs):
    model = AVModel.from_pretrained(model_folder(runs["leap"]))
    data, task = open_data(store, task="ovavel"), make_task("ovavel")
    new = {EVENTS.index(name) for name in never_trained_on(model.config, EVENTS)}
    assert {EVENTS.index(name) for name in UNSEEN} <= new
    category = data.split("test").labels("category")
    wanted = data.split("test").rows[~np.isin(category, sorted(new))]
    part = without(task, data, HELD, model=model).split("test")
    assert len(part) > 0 and part.rows.tolist() == wanted.tolist()
    assert part.spec.classes == data.spec.classes  # all of them stay candidates
    every = without(task, data, HELD).rows("test")
    assert every == (~np.isin(category, [EVENTS.index(name) for name in HELD])).sum() > len(part)
