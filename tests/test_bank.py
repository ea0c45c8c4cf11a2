"""The reference bank of a model: its file, what it changes and what not, and what it finds."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avplatform.api import evaluate
from avplatform.cli import main
from avplatform.data.store.schema import BACKGROUND
from avplatform.labels.bank import (
    LARGEST,
    ReferenceBank,
    check_bank,
    linear_scores,
    mixture,
    read_bank,
)
from avplatform.labels.open import never_trained_on
from avplatform.labels.unseen import MOST_GROUPS, WithBank, calibrated, groups_of, standard
from avplatform.models.av_model import BANK_FILE, AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from avplatform.models.texts.glove import GLOVE_PACKAGE, glove_embedder, glove_folders
from avplatform.tasks.batch import Batch
from avplatform.timeline.pipeline import PipelineConfig, pipeline
from avplatform.timeline.windows import Features
from tests.models.cells import cell

WIDE = {
    "avvp": FeatureSpec(audio_dim=40, visual_dim=44),
    "avel": FeatureSpec(audio_dim=40, visual_dim=44, map_size=(1, 1)),
    "ovavel": FeatureSpec(audio_dim=40, visual_dim=44),
}
WIDTHS = {"han": {"width": 64}, "mmpyr": {"width": 64}, "cmbs": {"width": 64}}
HELD = {
    "avvp": ["Cat", "Violin_fiddle"],
    "avel": ["Cat", "Violin, fiddle"],
    "ovavel": [
        *("airplane flyby", "cat purring", "fireworks banging", "gibbon howling"),
        *("playing mandolin", "playing violin", "race car", "typing on typewriter"),
    ],
}
ENCODERS = {"avvp": "han", "avel": "cmbs", "ovavel": "han"}


class World:
    """Clips whose segments look and sound as the texts of their events say, with some noise."""

    def __init__(self, task, encoder, segments=10):
        options = WIDTHS.get(encoder)
        whole = cell(
            task,
            encoder,
            "leap",
            features=WIDE[task],
            segments=segments,
            encoder_options=options,
            decoder_options={"width": 16},
        )
        self.task, self.segments = task, segments
        names = list(whole.model.config.classes)
        self.texts = whole.model.label_embeddings.detach()
        self.whole, self.events = whole.task, [n for n in names if n != BACKGROUND]
        kept = [n for n, name in enumerate(names) if name not in HELD[task]]
        config = AVModelConfig.from_dict(whole.model.config.to_dict())
        config.classes = [names[n] for n in kept]
        config.label_texts = [config.label_texts[n] for n in kept]
        torch.manual_seed(0)
        self.model = AVModel(config, label_embeddings=self.texts[kept]).eval()
        self.kept = [n for n in kept if names[n] != BACKGROUND]
        self.narrow = whole.task.with_classes([names[n] for n in self.kept])
        unit = torch.nn.functional.normalize(self.texts - self.texts.mean(dim=0), dim=1)
        rng = torch.Generator().manual_seed(1)
        spec = WIDE[task]
        self.looks = {
            stream: 3 * unit @ torch.randn(unit.shape[1], width, generator=rng)
            for stream, width in (("audio", spec.audio_dim), ("visual", spec.visual_dim))
        }

    def split(self, clips, classes, seed=0):
        """Return clips that hold one of some classes each, as a split of a store."""
        rng = torch.Generator().manual_seed(seed)
        chosen = torch.tensor(classes)[torch.arange(clips) % len(classes)]
        start = torch.randint(0, 5, (clips,), generator=rng)
        at = torch.arange(self.segments)
        there = (at >= start[:, None]) & (at < start[:, None] + 5)  # (N, T)
        streams = {
            name: torch.randn(clips, self.segments, looks.shape[1], generator=rng)
            + looks[chosen][:, None] * there[..., None]
            for name, looks in self.looks.items()
        }
        if WIDE[self.task].map_size:
            streams["visual"] = streams["visual"][:, :, None, None]
        columns = [self.kept.index(int(n)) if int(n) in self.kept else 0 for n in chosen]
        dense = torch.zeros(clips, self.segments, len(self.kept))
        for clip, column in enumerate(columns):
            dense[clip, there[clip], column] = 1
        background = len(self.kept)
        index = torch.where(there, torch.tensor(columns)[:, None], background)
        known = {"pseudo_audio": dense, "pseudo_visual": dense, "weak": dense.amax(dim=1)}
        if self.task != "avvp":
            known = {"segment": index, "video": torch.tensor(columns)}

        def batch(indices, labels=None):
            own = torch.as_tensor(np.asarray(indices))
            return Batch(
                audio=streams["audio"][own],
                visual=streams["visual"][own],
                motion=None,
                row=own,
                clip_id=[str(n) for n in own.tolist()],
                labels={} if labels == [] else {name: v[own] for name, v in known.items()},
            )

        return SplitOf(clips, batch, there, chosen)

    def parser(self, bank, held, among, **options):
        """Return the model with its bank for held-out classes alone, or among all."""
        events = [self.events[n] for n in (held if among == "held" else [*self.kept, *held])]
        task = self.whole.with_classes(events)
        rows = [self.events.index(name) for name in events]
        rows += [len(self.events)] * (len(self.texts) > len(self.events))
        unseen = [n for n, name in enumerate(events) if self.events.index(name) in held]
        return task, WithBank(
            self.model, bank, task, self.texts[rows], unseen, **{"assumed": "present", **options}
        )


class SplitOf(SimpleNamespace):
    """Some clips with `batch` as of a split, where their event is, and which."""

    def __init__(self, clips, batch, there, chosen):
        super().__init__(clips=clips, batch=batch, there=there, chosen=chosen)

    def __len__(self):
        return self.clips


@pytest.fixture(scope="module", params=["avvp", "avel", "ovavel"])
def world(request):
    made = World(request.param, ENCODERS[request.param])
    made.bank = ReferenceBank.make(made.model, made.narrow, made.split(200, made.kept))
    made.held = [made.events.index(name) for name in HELD[made.task]]
    return made


@pytest.fixture(scope="module")
def beside(world):
    """The task of all events, and the model with its bank for the held-out ones among them."""
    return world.parser(world.bank, world.held, "all")


def of(model, split, **options):
    batch = split.batch(list(range(len(split))))
    with torch.inference_mode():
        return model(batch.audio, batch.visual, batch.motion, **options).parse


def test_a_bank_is_read_as_it_was_written_and_the_same_seed_gives_the_same_file(world, tmp_path):
    file = world.bank.save(tmp_path / BANK_FILE)
    again = ReferenceBank.make(world.model, world.narrow, world.split(200, world.kept))
    assert again.save(tmp_path / "again").read_bytes() == file.read_bytes()
    found = ReferenceBank.read(file, world.model)
    assert found.about == world.bank.about and found.about["clips"] == 200
    for group in ("encoded", "events", "linear", "weights", "centre", "scale"):
        for name, values in getattr(world.bank, group).items():
            assert torch.equal(getattr(found, group)[name].float(), values.half().float()) or (
                torch.equal(getattr(found, group)[name], values)
            ), (group, name)


def test_a_bank_stays_small(world, monkeypatch, tmp_path):
    assert LARGEST < 5_000_000
    monkeypatch.setattr("avplatform.labels.bank.LARGEST", 150_000)
    split = world.split(60, world.kept)
    bank = ReferenceBank.make(world.model, world.narrow, split)
    assert 0 < bank.about["clips"] < 60
    assert bank.save(tmp_path / "bank").stat().st_size < 165_000


def test_a_bank_of_another_model_is_refused_with_the_reason(world, tmp_path):
    file = world.bank.save(tmp_path / BANK_FILE)
    other = AVModel(world.model.config, label_embeddings=world.model.label_embeddings + 0.5)
    with pytest.raises(DataError, match=r"other weights .*`avplatform bank RUN`"):
        ReferenceBank.read(file, other)
    config = AVModelConfig.from_dict(world.model.config.to_dict())
    config.classes = [f"{name}!" for name in config.classes]
    with pytest.raises(DataError, match="other classes"):
        ReferenceBank.read(file, AVModel(config, label_embeddings=world.model.label_embeddings))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="not a whole bank"):
        ReferenceBank.read(file, world.model)
    save_file(load_file(world.bank.save(tmp_path / "x")), file)
    with pytest.raises(DataError, match="not a bank of this version"):
        ReferenceBank.read(file, world.model)


def test_trained_labels_keep_their_logits_to_the_bit(world, beside):
    _, parser = beside
    clips = world.split(6, world.held, seed=5)
    plain = of(world.model, clips, label_embeddings=parser.labels)
    found = of(parser, clips)
    rest = [n for n in range(len(parser.labels)) if n not in parser.columns]
    for level in ("segment", "video"):
        for stream in parser.rule.streams:
            before, after = (
                getattr(getattr(parse, level), stream).values for parse in (plain, found)
            )
            assert torch.equal(before[..., rest], after[..., rest])
            assert not torch.equal(before[..., parser.columns], after[..., parser.columns])


def test_without_an_unseen_label_or_when_asked_the_bank_is_not_used(world, tmp_path, monkeypatch):
    model, names = world.model, [world.events[n] for n in world.kept]
    assert calibrated(model, world.narrow, None, ["Cat"], assumed="present") is None
    world.bank.save(tmp_path / BANK_FILE)
    monkeypatch.setattr(model, "folder", tmp_path)
    assert read_bank(model) is not None
    for labels, assumed in ((names, "present"), (HELD[world.task], "plain")):
        assert calibrated(model, world.narrow, None, labels, assumed=assumed) is None


def test_a_bank_that_was_asked_for_but_is_not_used_is_an_error(world, monkeypatch):
    monkeypatch.setattr(world.model, "folder", None)
    for labels, said in (
        ([world.events[world.kept[0]]], "the model was trained on all labels; leave it out"),
        (["xylophone"], "the model has no bank; make one with `avplatform bank RUN`"),
    ):
        task = world.whole.with_classes(labels)
        with pytest.raises(UsageError, match=f"unseen is 'training', but {said}"):
            calibrated(world.model, task, None, labels, assumed="training", asked=True)
        assert calibrated(world.model, task, None, labels, assumed="training") is None
        assert calibrated(world.model, task, None, labels, assumed="plain", asked=True) is None
    with pytest.raises(UsageError, match="but DCH is a classifier with one output"):
        closed = cell("avvp", "han", "dch")
        calibrated(closed.model, closed.task, None, ["x"], assumed="present", asked=True)


def test_what_is_left_out_is_not_read(world):
    _, parser = world.parser(world.bank, world.held, "held")
    group = [0, 3]
    before = parser.left_out(group)
    with torch.inference_mode():
        for values in parser.linear.values():  # the linear maps of what is left out
            values[..., group] = 1e3
    after = parser.left_out(group)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Its text enters as the text of an unseen label does, and in no other way.
    known, asked = torch.randn(6, 5), torch.randn(2, 5)
    assert mixture(known, asked).shape == (6, 2)
    assert torch.allclose(mixture(known, asked)[:, :1], mixture(known, asked[:1]), atol=1e-6)


def test_the_numbers_of_the_rule_are_picked_without_dropout(world, beside):
    _, without = beside
    assert not world.model.training and not without.training
    world.model.train()
    try:
        _, parser = world.parser(world.bank, world.held, "all")
        assert not world.model.training and not parser.training
    finally:
        world.model.eval()
    assert parser.choice == without.choice
    for stream, values in parser.tables.items():
        assert all(map(torch.equal, values, without.tables[stream]))


def test_beside_trained_labels_the_clips_without_unseen_ones_count(world, beside):
    _, beside = beside
    _, only = world.parser(world.bank, world.held, "held")
    _, rare = world.parser(world.bank, world.held, "all", assumed="training")
    assert only.alone and not beside.alone
    assert rare.alone == (not rare.rule.exclusive)


def test_groups_hold_each_class_equally_often():
    groups = groups_of(range(10), 3)
    counts = np.bincount(np.concatenate(groups), minlength=10)
    assert len(groups) >= 8 and counts.max() - counts.min() <= 3
    assert groups == groups_of(range(10), 3) and groups_of([4], 1) == []
    assert len(groups_of(range(67), 1)) == MOST_GROUPS


def test_standard_scores_are_normal_quantiles_among_the_table():
    table = torch.arange(99.0)[None]
    values = torch.tensor([49.0, -5.0, 500.0]).reshape(1, 3, 1)
    found = standard(values, table)[0, :, 0]
    assert found[0].abs() < 0.02 and found[1] < -2.5 and found[2] > 2.5


@pytest.mark.parametrize("among", ["held", "all"])
def test_in_a_planted_world_unseen_labels_are_found(world, among):
    task, parser = world.parser(world.bank, world.held, among, scores="linear")
    clips = world.split(40, world.held, seed=9)
    truth = torch.zeros(40, world.segments, len(world.held), dtype=torch.bool)
    for clip, number in enumerate(clips.chosen.tolist()):
        truth[clip, clips.there[clip], world.held.index(number)] = True
    stream = parser.rule.streams[0]

    def f(parse):
        maps = task.events(task.decide(parse))[stream][..., parser.columns]
        return float(2 * (maps & truth).sum() / (maps.sum() + truth.sum()))

    found, plain = f(of(parser, clips)), f(of(world.model, clips, label_embeddings=parser.labels))
    assert found > 0.5 and found > plain + 0.1


def test_a_clip_that_a_trained_class_explains_is_less_a_sign_of_an_unseen_label(world):
    _, plain = world.parser(world.bank, world.held, "held", rivals=0.0)
    _, parser = world.parser(world.bank, world.held, "held")

    def scores(scorer, classes):
        clips = world.split(40, classes, seed=9)
        batch = clips.batch(list(range(40)))
        with torch.inference_mode():
            output = scorer.model(batch.audio, batch.visual, label_embeddings=scorer.labels)
            beside = scorer.model.decoder(output.encoding, scorer.model.label_embeddings)
            linear = {
                s: linear_scores(values, *scorer.maps[s])
                for s, values in scorer.rule.encoded(output.encoding).items()
            }
            parts = output.parse.for_decisions, beside.for_decisions
            return scorer.scored(linear, *parts)

    pairs = [(scores(p, world.held), scores(p, world.kept)) for p in (plain, parser)]
    before, after = (float(held["clip"].mean() - kept["clip"].mean()) for held, kept in pairs)
    assert after > before + 0.02
    for stream in parser.rule.streams:  # when a label is in a clip does not change
        assert torch.equal(pairs[0][0][stream], pairs[1][0][stream])


@pytest.mark.parametrize(
    ("task", "encoder"),
    [("avvp", "han"), ("avvp", "mmpyr"), ("avel", "ave"), ("avel", "cmbs")],
)
def test_a_saved_model_predicts_with_its_bank_for_clips_of_any_length(task, encoder, tmp_path):
    world = World(task, encoder)
    bank = ReferenceBank.make(world.model, world.narrow, world.split(60, world.kept), clips=50)
    world.model.save_pretrained(tmp_path / "first")
    bank.save(tmp_path / "first" / BANK_FILE)
    AVModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "first")
    labels = ["dog", "cat"] if task == "avvp" else ["Bark", "cat"]
    clip = world.split(2, world.kept).batch([0, 1])
    values = {
        name: np.tile(getattr(clip, name)[0].numpy(), (2, *[1] * (getattr(clip, name).ndim - 2)))
        for name in ("audio", "visual")
    }
    for seconds in (3, 17):
        features = Features(**{name: v[:seconds] for name, v in values.items()})
        options = dict(labels=labels, extractor=object())
        asked = pipeline(tmp_path / "model", **options)
        found = asked.parse(features)
        assert found.never_trained_on == ["cat"] and found.bank == "training"
        assert "calibrated by the model's bank" in found.notes[0]
        plain = pipeline(tmp_path / "model", config=PipelineConfig(unseen="plain"), **options)
        assert plain.parse(features).bank is None and plain.with_bank is None
        assert all(np.isfinite(v).all() and len(v) == seconds for v in found.scores.values())
    assert json.loads(_exported(found))["bank"] == {"assumed": "training"}


def _exported(timeline):
    from avplatform.timeline.export import as_json

    return as_json(timeline)


def test_a_rare_label_is_not_everywhere(world):
    unknown = torch.randn(1, world.texts.shape[1], generator=torch.Generator().manual_seed(2))
    parser, task = absurd(world, unknown)
    clips = world.split(80, world.kept, seed=3)
    found = task.events(task.decide(of(parser, clips)))[parser.rule.streams[0]]
    assert found.any(dim=1).float().mean() < 0.3


def absurd(world, text):
    """Return the model with its bank for one unseen label with this text vector, and its task."""
    task = world.whole.with_classes(["xylophone on the moon"])
    labels = torch.cat([text, world.texts[len(world.events) :]])
    return WithBank(world.model, world.bank, task, labels, [0], assumed="training"), task


def noise_like(clips, times):
    """Return noise of so many times the deviation of both streams of some clips."""
    real, rng = clips.batch(list(range(len(clips)))), torch.Generator().manual_seed(4)
    return [
        times * torch.randn(values.shape, generator=rng) * values.std()
        for values in (real.audio, real.visual)
    ]


def test_in_clips_unlike_all_of_the_bank_no_unseen_label_scores(world):
    """Here the limit itself is tested, and so by what counts as unlike, not by a label."""
    parser, task = absurd(world, world.texts[world.held[0]][None])
    clips = world.split(80, world.kept, seed=3)
    far = noise_like(clips, 6)
    near = clips.batch(list(range(80)))
    with torch.inference_mode():
        inputs = parser.rule.encoded(world.model(*far).encoding)
        assert all(there.all() for there in parser.unlike(inputs).values())
        found = task.events(task.decide(parser(*far).parse))
        assert not any(maps.any() for maps in found.values())
        inputs = parser.rule.encoded(world.model(near.audio, near.visual).encoding)
        assert all(there.float().mean() < 0.3 for there in parser.unlike(inputs).values())


@pytest.mark.skipif(not glove_folders(GLOVE_PACKAGE), reason=f"{GLOVE_PACKAGE} is not installed")
def test_an_absurd_label_by_its_own_words_is_decided_on_noise_as_any_other(world):
    """Whether it is found there is not asserted."""
    parser, task = absurd(world, glove_embedder()(["xylophone on the moon"]))
    for times in (0, 1, 6):
        audio, visual = noise_like(world.split(8, world.kept, seed=3), times)
        with torch.inference_mode():
            parse = parser(audio, visual).parse
        found = task.events(task.decide(parse))
        for stream in parser.rule.streams:
            assert found[stream].shape == (8, world.segments, 1)
            assert getattr(parse.segment, stream).probability.isfinite().all()
    assert never_trained_on(world.model.config, ["xylophone on the moon"]) == [
        "xylophone on the moon"
    ]


def test_a_model_that_cannot_look_for_labels_has_no_bank(world):
    closed = cell("avvp", "han", "mmil")
    with pytest.raises(UsageError, match="cannot look for other labels"):
        ReferenceBank.make(closed.model.eval(), closed.task, world.split(4, world.kept))
    both = cell("avel", "identity", "cosine", task_options={"decision": "agreement"})
    with pytest.raises(UsageError, match="the task avel has no rule, with the options of this"):
        check_bank(both.model, both.task)


SMALL = ["--encoder", "han", "--encoder-config.width", "16", "--encoder-config.heads", "2"]
SMALL += ["--decoder-config.heads", "2", "--max-steps", "2", "--batch-size", "4", "--cpu"]


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_training_makes_a_bank_that_eval_uses_and_the_command_makes_again(
    small_stores, tmp_path, capsys, task
):
    run, data = tmp_path / "run", str(small_stores[task])
    held = ["Cheering", "Violin_fiddle"] if task == "avvp" else ["Flute", "Goat"]
    given = ["train", "--task", task, *SMALL, "--data", data, "--no-save-plots"]
    assert main([*given, "--held-out", *held, "--output-dir", str(run)]) == 0
    bank = run / "model" / BANK_FILE
    first = bank.read_bytes()
    assert "calibrated by the model's bank" in (run / "model" / "README.md").read_text("utf-8")
    bank.unlink()
    assert read_bank(AVModel.from_pretrained(run)) is None
    assert main(["bank", str(run), "--cpu"]) == 0
    assert bank.read_bytes() == first
    out = tmp_path / "out.json"
    for unseen in ("present", "training", "plain"):
        flags = ["--held-out", *held, "--among", "all", "--unseen", unseen, "--json", str(out)]
        assert main(["eval", str(run), "--cpu", *flags]) == 0
        content, said = json.loads(out.read_text()), capsys.readouterr().out
        assert ("bank" in content) == (unseen != "plain") == ("calibrated by the model's" in said)
        made = content["generalised"]
        assert made["unseen"] == content["test"][made["figure"]]
        assert "harmonic mean" in said and 0 <= made["seen"] <= 100
    assert main(["bank", str(tmp_path / "none"), "--cpu"]) == 2
    model = AVModel.from_pretrained(run)
    model.folder = None  # as of a model that was never saved
    plain = evaluate(model, data=data, held_out=held, among="all", cpu=True)
    assert "bank" not in plain and plain["test"] == content["test"]


def test_a_training_that_cannot_make_its_bank_is_refused_before_it_begins(
    small_stores, tmp_path, capsys
):
    given = ["train", "--task", "avvp", "--encoder", "han", "--data", str(small_stores["avvp"])]
    given += ["--bank-clips", "9", "--output-dir", str(tmp_path / "run"), "--cpu"]
    for flags, said in (
        (["--decoder", "leap", "--streaming"], "afterwards with `avplatform bank RUN`"),
        (["--decoder", "mmil"], "so it cannot look for other labels; train a model with --decoder"),
        (["--decoder", "leap", "--labels.embeddings", "learned"], "--labels.embeddings glove-50d"),
    ):
        assert main([*given, *flags]) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert "bank_clips is 9, but" in shown and said in shown
    assert not (tmp_path / "run").exists()


def test_a_streamed_model_gets_its_bank_afterwards_and_a_lone_folder_with_its_data(
    small_stores, tmp_path, capsys
):
    run, data = tmp_path / "run", str(small_stores["avvp"])
    given = ["train", "--task", "avvp", *SMALL, "--data", data, "--no-save-plots", "--streaming"]
    assert main([*given, "--decoder", "leap", "--output-dir", str(run)]) == 0
    assert main(["bank", str(run), "--cpu"]) == 0 and (run / "model" / BANK_FILE).is_file()
    alone = str(shutil.copytree(run / "model", tmp_path / "alone"))  # as a converted model is
    capsys.readouterr()
    for flags, said in (
        ([], "does not say what it was trained on, as a converted model does not; give --data"),
        (["--data", str(small_stores["avel"])], "are for avel, not avvp"),
    ):
        assert main(["bank", alone, "--cpu", *flags]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["bank", alone, "--cpu", "--data", data]) == 0
