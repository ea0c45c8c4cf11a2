"""Steps that ask for some of the classes and for distractors: which, their loss, and repeats."""

import json

import pytest
import torch
import torch.nn.functional as F

from avplatform.cli import main
from avplatform.config.build import open_run
from avplatform.config.compose import parse
from avplatform.data.adapters.ovave.classes import UNSEEN
from avplatform.data.simulate.demo import make_demo
from avplatform.models.errors import UsageError
from avplatform.models.texts.glove import shipped_vectors
from avplatform.tasks.batch import Processes
from avplatform.tasks.losses import clamped_bce
from avplatform.training.asked import asked_labels
from tests import processes
from tests.end_to_end.test_runs import SMALL, same, train, train_until_killed, weights

ASKED = ["--labels.asked-share", "0.4", "--labels.distractors", "3"]


def opened(task, store, *flags):
    """A run's task, data and model, and what chooses its labels."""
    config = parse([*SMALL[task], "--data", str(store), *flags])
    found = open_run(config)
    return found, asked_labels(config, found.task, found.data, found.model)


def step(found, asked, number, clips=(0, 1, 2)):
    raw = found.data.split("train").batch(list(clips))
    return raw, asked.choose(raw, raw, number, Processes())


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_step_asks_for_the_classes_of_its_clips_a_share_of_the_others_and_distractors(
    small_stores, task
):
    found, asked = opened(task, small_stores[task], *ASKED)
    raw, first = step(found, asked, 7)
    events = [name for name in found.data.spec.classes if name != "background"]
    if task == "avvp":
        held = {events[n] for n in raw.labels["weak"].any(dim=0).nonzero().flatten()}
    else:
        held = {events[n] for n in raw.labels["segment"].unique() if n < len(events)}
    names = [name for name in first.task.classes if name != "background"]
    assert held and held <= set(names) and names[-3:] == [f"distractor {n}" for n in (1, 2, 3)]
    assert len(names) == len(held) + round(0.4 * (len(events) - len(held))) + 3
    again, later = step(found, asked, 7)[1], step(found, asked, 8)[1]
    assert again.task.classes == first.task.classes != later.task.classes
    assert all(torch.equal(again.told[n], first.told[n]) for n in first.told)
    assert not torch.equal(again.told["label_embeddings"], later.told["label_embeddings"])


def test_the_loss_of_independent_classes_is_the_mean_over_those_that_are_asked(small_stores):
    found, asked = opened("avvp", small_stores["avvp"], "--supervision", "weak", *ASKED)
    raw, (task, batch, told) = step(found, asked, 1)
    model = found.model.eval()
    loss = task.loss(*model(raw.audio, raw.visual, raw.motion, **told), batch)
    whole = model(
        raw.audio, raw.visual, raw.motion, label_embeddings=told["label_embeddings"]
    ).parse
    target = F.pad(raw.labels["weak"].float(), (0, 3))[:, told["asked"]]
    p = whole.video.audio.probability[:, told["asked"]]
    torch.testing.assert_close(loss["audio"], clamped_bce(p, target))
    assert not batch.labels["weak"][:, -3:].any() and batch.labels["weak"].sum() > 0


def test_the_loss_of_classes_that_exclude_each_other_is_that_among_those_that_are_asked(
    small_stores,
):
    found, asked = opened("avel", small_stores["avel"], *ASKED)
    raw, (task, batch, told) = step(found, asked, 1)
    model, own = found.model.eval(), found.data.spec.classes
    loss = task.loss(*model(raw.audio, raw.visual, raw.motion, **told), batch)
    names = [own[n] if n < len(own) else f"distractor {n - 28}" for n in told["asked"].tolist()]
    assert names == list(task.classes) and names[-1] == "background"
    assert [names[n] for n in batch.labels["segment"].flatten()] == [
        own[n] for n in raw.labels["segment"].flatten()
    ]
    whole = model(
        raw.audio, raw.visual, raw.motion, label_embeddings=told["label_embeddings"]
    ).parse
    logits = whole.segment.av.logit[..., told["asked"]]
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels["segment"].flatten())
    torch.testing.assert_close(loss["segment"], expected)


def test_unseen_classes_of_an_open_vocabulary_are_never_asked(tmp_path):
    make_demo("ovavel", tmp_path / "store", sizes={"train": 46, "validation": 67, "test": 67})
    flags = ["--task", "ovavel", "--encoder", "han", "--encoder-config.width", "16", *ASKED]
    config = parse([*flags, "--data", str(tmp_path / "store"), "--cpu"])
    found = open_run(config)
    asked = asked_labels(config, found.task, found.data, found.model)
    for number in range(4):
        raw, (task, batch, told) = step(found, asked, number)
        assert not {*UNSEEN} & {*task.classes} and task.asked() is None
        assert len(task.classes) < len(found.task.asked())
        assert batch.labels["segment"].max() <= len(task.classes) - 1
        loss = task.loss(*found.model(raw.audio, raw.visual, **told), batch)
        assert set(loss) == {"segment", "video"} and sum(loss.values()).isfinite()


def test_distractors_are_words_beside_those_of_all_classes_or_as_long_as_label_embeddings(
    small_stores,
):
    store = small_stores["avvp"]
    _, words = opened("avvp", store, *ASKED, "--held-out", "Cat")
    table = {tuple(vector.tolist()): word for word, vector in shipped_vectors().items()}
    pool = [table[tuple(row.tolist())] for row in words.pool]
    assert len(set(pool)) == len(pool) > 50 and "church" in pool
    assert not {"cat", "dog", "laughter", "violin", "fiddle"} & set(pool)
    found, asked = opened("avvp", store, *ASKED, "--labels.distractor-texts", "random")
    norm = found.model.label_embeddings.norm(dim=1).mean()
    torch.testing.assert_close(asked.pool.norm(dim=1), norm.expand(len(asked.pool)))


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_killed_run_asks_for_the_same_labels_after_its_resume(small_stores, tmp_path, task):
    flags = ["--max-steps", "5", "--checkpointing.every", "2", "--no-save-plots", *ASKED]
    assert train(task, small_stores[task], tmp_path / "whole", *flags) == 0
    train_until_killed(task, small_stores[task], tmp_path / "killed", *flags, steps=3)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    plain = [*flags[:5], "--labels.asked-share", "1"]
    assert train(task, small_stores[task], tmp_path / "plain", *plain) == 0
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "plain"))
    assert "distractors: 3" in (tmp_path / "whole" / "config.yaml").read_text()


def test_two_processes_ask_for_the_same_labels_as_one(small_stores, tmp_path):
    still = ["encoder-config.dropout", "decoder-config.dropout", "decoder-config.attention-dropout"]
    flags = ["train", *SMALL["avvp"], "--data", str(small_stores["avvp"]), "--supervision", "weak"]
    flags += ["--decoder-config.form", "released", "--precision", "float64", "--max-steps", "4"]
    flags += ["--no-save-plots", *ASKED, *(word for flag in still for word in (f"--{flag}", "0"))]
    losses = []
    for count in (1, 2):
        out = tmp_path / str(count)
        processes.run([*flags, "--output-dir", str(out)], tmp_path / "log", processes=count)
        records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        losses.append([r["loss"] for r in records if r["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-9) and len(set(losses[0])) == 4


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("avvp", ["--decoder", "mmil"], "mmil does not use label embeddings"),
        ("avel", ["--encoder", "cmbs"], "decoder.query_classes.* by position"),
        ("avel", ["--encoder", "psp", "--task-config.pair-target", "official"], "pair_target"),
        ("avvp", ["--labels.embeddings", "learned"], "no other text has one"),
        ("avvp", ["--labels.distractors", "900"], "words beyond those of the classes"),
    ],
)
def test_what_would_read_the_list_by_position_is_refused(small_stores, task, flags, message):
    with pytest.raises(UsageError, match=message):
        opened(task, small_stores[task], *ASKED, *flags)


def test_a_file_has_no_words_but_random_distractors(small_stores, tmp_path):
    file = tmp_path / "labels.npy"
    assert main(["embed-labels", "--task", "avvp", "--out", str(file)]) == 0
    flags = [*ASKED, "--labels.embeddings", str(file)]
    with pytest.raises(UsageError, match=r"has no list of words; set labels.distractor_texts"):
        opened("avvp", small_stores["avvp"], *flags)
    random = ["--labels.distractor-texts", "random"]
    assert len(opened("avvp", small_stores["avvp"], *flags, *random)[1].pool) == 1000
    with pytest.raises(UsageError, match="but distractors is 0"):
        opened("avvp", small_stores["avvp"], *random)


def test_learned_embeddings_may_be_asked_in_part(small_stores):
    flags = ["--labels.embeddings", "learned", "--labels.asked-share", "0"]
    found, asked = opened("avvp", small_stores["avvp"], *flags)
    raw, (task, _, told) = step(found, asked, 0)
    assert set(told) == {"asked"}
    assert len(task.classes) == len(told["asked"]) == int(raw.labels["weak"].any(dim=0).sum())
