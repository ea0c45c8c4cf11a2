"""Labels by modality: their files, the commands that make them, and every refusal."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avplatform import cli
from avplatform.config.build import open_run
from avplatform.config.run import default_config
from avplatform.data import open_data
from avplatform.models.errors import DataError
from avplatform.pseudo_labels import refine
from avplatform.pseudo_labels.exchange import Exchanged, divisors, dropped_labels, partners
from avplatform.tasks.avvp.refinements import NoiseRatios, RefinedLabels
from tests.tasks.test_avvp import real

CLASSES = ("Speech", "Dog", "Violin, fiddle")


def refined(**more):
    keep_audio = np.array([[True, False, True], [True, True, True]])
    keep_visual = np.array([[False, False, True], [True, True, True]])
    return RefinedLabels(CLASSES, ("a/1", "b 2"), keep_audio, keep_visual, {"rule": "test"}, **more)


def test_refined_labels_are_read_as_written(tmp_path):
    refined().save(tmp_path / "new" / "labels.json")
    found = RefinedLabels.read(tmp_path / "new" / "labels.json", CLASSES)
    assert found.clip_ids == ("a/1", "b 2") and found.made_by == {"rule": "test"}
    assert (found.keep_audio == refined().keep_audio).all()
    assert (found.keep_visual == refined().keep_visual).all()
    assert found.dropped()["visual"].tolist() == [1, 1, 0]
    assert found.rows(["b 2", "a/1"]) == [1, 0]


def test_classes_of_a_file_are_found_by_name(tmp_path):
    refined().save(tmp_path / "labels.json")
    found = RefinedLabels.read(tmp_path / "labels.json", ("Violin, fiddle", "Dog"))
    assert found.keep_audio.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c.update(format="other"), "not a file of avplatform refined labels"),
        (lambda c: c.update(version=9), "version 9"),
        (lambda c: c.update(classes="Dog"), "no list of classes"),
        (lambda c: c["classes"].append(["Dog"]), "no list of classes"),
        (lambda c: c.update(made_by="me"), "made_by is 'me'; it must be an object"),
        (lambda c: c["dropped"].update({"a/1": {"audio": ["Cat"]}}), "drops ['Cat'] from audio"),
        (lambda c: c["dropped"].update({"a/1": ["Dog"]}), "clip 'a/1' drops None"),
    ],
)
def test_wrong_files_are_refused(tmp_path, change, said):
    file = tmp_path / "labels.json"
    refined().save(file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=".*") as error:
        RefinedLabels.read(file, CLASSES)
    assert said in str(error.value) and str(file) in str(error.value)


def test_other_classes_and_other_clips_are_named(tmp_path):
    refined().save(tmp_path / "labels.json")
    with pytest.raises(DataError, match="knows nothing of 1 class of this run, 'Cat' first"):
        RefinedLabels.read(tmp_path / "labels.json", ("Dog", "Cat"))
    with pytest.raises(DataError, match="no refined labels of 1 clip of 2, 'c' first"):
        refined().rows(["a/1", "c"])
    with pytest.raises(DataError, match="cannot be read"):
        RefinedLabels.read(tmp_path / "nothing.json", CLASSES)
    (tmp_path / "text.json").write_text("not JSON")
    with pytest.raises(DataError, match="is not JSON"):
        RefinedLabels.read(tmp_path / "text.json", CLASSES)


def test_noise_ratios_are_read_as_written(tmp_path):
    ratios = NoiseRatios(CLASSES, np.array([0.1, np.nan, 1.0]), np.array([0.994, 0.0, 0.25]))
    ratios.save(tmp_path / "ratios.json")
    found = NoiseRatios.read(tmp_path / "ratios.json", CLASSES)
    np.testing.assert_array_equal(found.audio, ratios.audio)
    np.testing.assert_array_equal(found.visual, ratios.visual)
    less = NoiseRatios.read(tmp_path / "ratios.json", ("Violin, fiddle", "Speech"))
    assert less.visual.tolist() == [0.25, 0.994]
    text = (tmp_path / "ratios.json").read_text(encoding="utf-8").replace("0.994", "true")
    (tmp_path / "ratios.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="a ratio True; it must be a number or null"):
        NoiseRatios.read(tmp_path / "ratios.json", CLASSES)


def test_the_published_file_of_ratios_is_read_and_checked(tmp_path):
    file = tmp_path / "noise_ratios.npz"
    np.savez(file, audio=np.array([0.1, 0.2, 0.3]), visual=np.array([0.9, np.nan, 0.0]))
    assert NoiseRatios.read(file, CLASSES).audio.tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(DataError, match="another list of classes"):
        NoiseRatios.read(file, CLASSES[:2])
    np.savez(file, audio=np.array([0.1, 0.2, 1.3]), visual=np.zeros(3))
    with pytest.raises(DataError, match="audio ratio of 'Violin, fiddle' is 1.3"):
        NoiseRatios.read(file, CLASSES)
    np.savez(file, audio=np.zeros(3))
    with pytest.raises(DataError, match="not a file of noise ratios"):
        NoiseRatios.read(file, CLASSES)
    np.savez(file, audio=np.array([{}, {}, {}]), visual=np.zeros(3))
    with pytest.raises(DataError, match="not a file of noise ratios"):
        NoiseRatios.read(file, CLASSES)


def test_partners_share_no_class_and_depend_on_the_clip_alone():
    rng = np.random.default_rng(0)
    weak = rng.random((60, 4)) < 0.4
    ids = [f"clip{i}" for i in range(60)]
    found, known = partners(ids, weak, seed=2)
    assert known.any() and not (weak[known] & weak[found[known]]).any()
    assert not (found[known] == np.arange(60)[known]).any()
    shuffled = rng.permutation(60)
    again, _ = partners([ids[i] for i in shuffled], weak[shuffled], seed=2)
    assert [ids[i] for i in shuffled[again]] == [ids[found[i]] for i in shuffled]
    assert (partners(ids, weak, seed=3)[0] != found).any()


def test_a_clip_without_partner_is_left_alone():
    found, known = partners(["a", "b"], np.array([[1, 0], [1, 1]]), seed=2)
    assert found.tolist() == [0, 1] and not known.any()


def test_a_class_may_keep_its_more_probable_modality():
    weak, low = torch.ones(1, 2), torch.full((1, 2), 0.01)
    own = Exchanged(torch.tensor([[0.4, 0.2]]), torch.tensor([[0.3, 0.3]]), low, low, low, low)
    scale = divisors(own.audio, weak), divisors(own.visual, weak)
    audio, visual = dropped_labels(own, weak, scale)
    assert audio.all() and visual.all()
    audio, visual = dropped_labels(own, weak, scale, both="keep_one")
    assert audio.tolist() == [[False, True]] and visual.tolist() == [[True, False]]


@pytest.fixture(scope="module")
def model(small_stores, tmp_path_factory):
    """An untrained model of the small store; refined labels need its predictions, not its skill."""
    config = default_config("avvp", "han", "mmil", "weak")
    config.encoder_config.width = config.encoder_config.hidden = 16
    config.data = str(small_stores["avvp"])
    folder = tmp_path_factory.mktemp("model")
    open_run(config).model.save_pretrained(folder)
    return folder


def command(*args):
    return cli.main(["pseudo-label", *map(str, args)])


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; return what it says."""

    def run(*args):
        assert command(*args) != 0
        return capsys.readouterr().err

    return run


def test_exchange_writes_labels_that_training_reads(small_stores, model, tmp_path, capsys, refused):
    out = tmp_path / "refined.json"
    store = small_stores["avvp"]
    assert command("exchange", "--model", model, "--data", store, "--out", out, "--cpu") == 0
    said = capsys.readouterr().out
    assert "training labels that were dropped" in said
    assert "no visual" in said or "no audio" in said  # the rival that asks no model
    data = open_data(store, task="avvp")
    found = RefinedLabels.read(out, data.spec.classes)
    train = data.split("train")
    assert set(found.clip_ids) == set(train.clip_ids)
    weak = np.array(train.labels("weak"), dtype=bool)
    rows = found.rows(train.clip_ids)
    assert not (~found.keep_audio[rows] & ~weak).any()  # only labels that are there are dropped
    assert found.made_by["data_checksum"] == data.checksum
    assert not refine.parts_of(out).exists()
    args = ("--model", model, "--data", store, "--out", out, "--cpu")
    assert "exists; delete it" in refused("exchange", *args)


@pytest.fixture
def stopped(monkeypatch):
    """Run a command that is stopped after three parts of seven clips; return how parts are saved.

    `saved` is the list of the parts that are saved afterwards.
    """
    monkeypatch.setattr(refine, "PART", 7)
    write, saved = refine.save_tensors, []

    def run(*args):
        def stop_after_three(tensors, path):
            if len(saved) == 3:
                raise KeyboardInterrupt
            noted(tensors, path)

        def noted(tensors, path):
            write(tensors, path)
            saved.append(path)

        monkeypatch.setattr(refine, "save_tensors", stop_after_three)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            if command(*args) != 0:
                raise SystemExit
        monkeypatch.setattr(refine, "save_tensors", noted)
        assert len(saved) == 3
        saved.clear()
        return saved

    return run


def test_exchange_goes_on_after_its_parts(small_stores, model, tmp_path, stopped, refused):
    store, out = small_stores["avvp"], tmp_path / "stopped.json"
    args = ["exchange", "--model", model, "--data", store, "--cpu"]
    saved = stopped(*args, "--out", out)
    parts = sorted(refine.parts_of(out).glob("*.safetensors"))
    assert len(parts) == 3 and load_file(parts[0])["audio"].shape == (7, 25)
    assert "another seed" in refused(*args, "--seed", 3, "--out", out)
    assert command(*args, "--out", out) == 0 and len(saved) == 4 - 3 + 2  # train, validation
    assert command(*args, "--out", tmp_path / "whole.json") == 0
    assert json.loads(out.read_text()) == json.loads((tmp_path / "whole.json").read_text())


def test_other_thresholds_go_on_with_the_same_probabilities(small_stores, model, tmp_path, stopped):
    store, out = small_stores["avvp"], tmp_path / "stopped.json"
    args = ["noise-ratio", "--model", model, "--data", store, "--cpu"]
    saved = stopped(*args, "--out", out)
    other = ["--audio-threshold", 1.0, "--visual-threshold", 0.9, "--mean-batch", 5]
    assert command(*args, *other, "--out", out) == 0 and len(saved) == 1  # nothing is repeated
    assert command(*args, *other, "--out", tmp_path / "whole.json") == 0
    assert json.loads(out.read_text()) == json.loads((tmp_path / "whole.json").read_text())
    assert command(*args, "--out", tmp_path / "default.json") == 0
    both = [json.loads((tmp_path / n).read_text()) for n in ("whole.json", "default.json")]
    assert both[0]["audio"] != both[1]["audio"]  # the thresholds count


def test_noise_ratios_are_written_with_their_distance_from_the_truth(
    small_stores, model, tmp_path, capsys
):
    out = tmp_path / "ratios.json"
    store = small_stores["avvp"]
    assert command("noise-ratio", "--model", model, "--data", store, "--out", out, "--cpu") == 0
    said = capsys.readouterr().out
    assert "distance from the truth of validation" in said and "nothing is noise" in said
    data = open_data(store, task="avvp")
    found = NoiseRatios.read(out, data.spec.classes)
    absent = np.array(data.split("train").labels("weak")).sum(axis=0) == 0
    np.testing.assert_array_equal(np.isnan(found.audio), absent)


def test_a_class_can_be_dropped_without_a_model(small_stores, tmp_path):
    out, store = tmp_path / "rival.json", small_stores["avvp"]
    assert command("drop", "--data", store, "--visual", "Speech", "--out", out) == 0
    data = open_data(store, task="avvp")
    found = RefinedLabels.read(out, data.spec.classes)
    train = data.split("train")
    weak = np.array(train.labels("weak"), dtype=bool)
    speech = data.spec.classes.index("Speech")
    rows = found.rows(train.clip_ids)
    assert (~found.keep_visual[rows] == (weak & (np.arange(25) == speech))).all()
    assert found.keep_audio.all()


def test_wrong_models_data_and_names_are_refused(small_stores, model, tmp_path, refused):
    out = ("--out", tmp_path / "x.json")
    llp = ("--data", small_stores["avvp"])
    assert "nothing to drop" in refused("drop", *llp, *out)
    assert "Speach" in (said := refused("drop", *llp, "--visual", "Speach", *out))
    assert "Speech" in said
    ave = ("--data", small_stores["avel"])
    assert "are for avel, not avvp" in refused("exchange", "--model", model, *ave, *out)
    assert "does not say what it was trained on" in refused("exchange", "--model", model, *out)
    assert not (tmp_path / "x.json").exists()


def test_a_model_of_other_classes_is_refused(small_stores, model, tmp_path, refused):
    content = json.loads((model / "config.json").read_text())
    content["classes"][3] = "Something else"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(content))
    (other / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    data = ("--data", small_stores["avvp"])
    said = refused("exchange", "--model", other, *data, "--out", tmp_path / "x.json")
    assert "was trained for 25 classes that are not those" in said


def test_training_refuses_labels_of_other_clips(small_stores, model, tmp_path):
    out, store = tmp_path / "refined.json", small_stores["avvp"]
    assert command("drop", "--data", store, "--visual", "Speech", "--out", out) == 0
    content = json.loads(out.read_text())
    gone = next(iter(content["dropped"]))
    config = default_config("avvp", "han", "mmil", "weak")
    assert open_run(config).task.label_origins() == {}
    config.task_config.refined, config.data = str(out), str(store)
    origins = open_run(config).task.label_origins()
    assert origins["refined"]["rule"] == "drop" and origins["refined"]["visual"] == ["Speech"]
    del content["dropped"][gone]
    out.write_text(json.dumps(content))
    for streaming in ((), ("--streaming",)):
        said = begin(store, tmp_path, *streaming, refined=out)
        assert f"no refined labels of 1 clip of 24, '{gone}' first" in said
        assert not (tmp_path / "run").exists()  # refused before the first step


def begin(store, tmp_path, *more, preset="ma-mmil-avvp-weak", **options):
    """Begin a run of one step, and return what it says."""
    flags = [x for k, v in options.items()
             for x in (f"--task-config.{k.replace('_', '-')}", str(v))]  # fmt: skip
    where = ["--data", store, "--output-dir", tmp_path / "run", "--cpu", "--max-steps", 1]
    small = ["--encoder-config.width", 8, "--encoder-config.hidden", 8, "--no-save-plots"]
    said, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
        cli.main(["train", *map(str, ["--preset", preset, *where, *small, *more, *flags])])
    return " ".join((said.getvalue() + out.getvalue()).split())


@pytest.fixture
def ratios(small_stores, tmp_path):
    """Write a file of noise ratios that says on which data it was made."""

    def write(*, audio=0.5, visual=0.5, **made_by):
        spec = open_data(small_stores["avvp"], task="avvp").spec
        values = (np.full(len(spec.classes), value) for value in (audio, visual))
        file = tmp_path / "ratios.json"
        NoiseRatios(tuple(spec.classes), *values, made_by).save(file)
        return {"noise_ratios": file, "denoise": "self"}

    return write


def test_training_refuses_what_was_made_on_other_data_with_the_same_classes(
    small_stores, tmp_path, ratios
):
    store, out = small_stores["avvp"], tmp_path / "refined.json"
    assert command("drop", "--data", store, "--visual", "Speech", "--out", out) == 0
    content = json.loads(out.read_text())
    content["made_by"] |= {"data": "other clips", "data_checksum": "0" * 64}
    out.write_text(json.dumps(content))
    for options in ({"refined": out}, ratios(data="other clips", data_checksum="0" * 64)):
        said = begin(store, tmp_path, **options)
        assert "was made on other data, 'other clips' (checksum 000000000000)" in said
        assert not (tmp_path / "run").exists()
    del content["made_by"]["data_checksum"]
    out.write_text(json.dumps(content))
    for options, compared in (({"refined": out}, "its classes and its clips"),
                              (ratios(), "its classes were")):  # fmt: skip
        said = begin(store, tmp_path, **options)
        assert f"does not say which data it was made on; only {compared}" in said
        shutil.rmtree(tmp_path / "run")  # it began


def test_ratios_that_can_drop_nothing_are_named(small_stores, tmp_path, ratios):
    store = small_stores["avvp"]
    checksum = open_data(store, task="avvp").checksum
    about = {"data_checksum": checksum}
    for low in (0.0, np.nan):
        said = begin(store, tmp_path, **ratios(audio=low, visual=low, **about))
        assert "holds no ratio above 0, so denoising drops no label" in said
        shutil.rmtree(tmp_path / "run")
    small = ratios(audio=0.1, visual=0.2, **about)
    for size, options, named in ((4, {}, True), (5, {}, False),
                                 (4, {"denoise_rounding": "carry"}, False)):  # fmt: skip
        said = begin(store, tmp_path, "--batch-size", size, **small, **options)
        assert ("less than one label in a batch of 4" in said) == named
        assert "does not say which data" not in said
        shutil.rmtree(tmp_path / "run")


def test_a_class_without_clips_is_neither_dropped_nor_an_error(small_stores, model, tmp_path):
    """The store has no clip of it: its ratio is unknown, and a step with it is finite."""
    store, file = small_stores["avvp"], tmp_path / "ratios.json"
    data = open_data(store, task="avvp")
    weak = np.array(data.split("train").labels("weak"))
    empty = [data.spec.classes[c] for c in np.flatnonzero(weak.sum(axis=0) == 0)]
    assert empty, "the store has clips of all classes; take a smaller one"
    assert command("noise-ratio", "--model", model, "--data", store, "--out", file, "--cpu") == 0
    assert all(json.loads(file.read_text())[s][name] is None
               for s in ("audio", "visual") for name in empty)  # fmt: skip
    options = {"noise_ratios": file, "denoise": "self", "denoise_warm_up": "off"}
    begin(store, tmp_path, **options)
    (step,) = (r for r in map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
               if r["event"] == "step")  # fmt: skip
    assert np.isfinite(step["loss"])
    refined = tmp_path / "refined.json"
    assert command("exchange", "--model", model, "--data", store, "--out", refined, "--cpu") == 0
    gone = RefinedLabels.read(refined, data.spec.classes).dropped()
    assert all(gone[s][data.spec.classes.index(name)] == 0 for s in gone for name in empty)


def test_a_model_of_another_dataset_refines_nothing(small_stores, model, tmp_path, capsys, refused):
    store, run = small_stores["avvp"], tmp_path / "run"
    shutil.copytree(model, run / "model")
    checksum = open_data(store, task="avvp").checksum
    (run / "config.yaml").write_text(f"data: {store}\n")
    for known, said in (("0" * 64, "was trained on other data (checksum 000000000000)"),
                        (checksum, "")):  # fmt: skip
        (run / "results.json").write_text(json.dumps({"data_checksum": known}))
        out = tmp_path / "ratios.json"
        if said:
            for rule in ("exchange", "noise-ratio"):
                assert said in refused(rule, "--model", run, "--out", out, "--cpu")
            continue
        assert command("noise-ratio", "--model", run, "--out", out, "--cpu") == 0
        assert "does not say which data it was trained on" not in capsys.readouterr().out
        about = json.loads(out.read_text())["made_by"]
        assert about["model_data_checksum"] == about["data_checksum"] == checksum


@real
def test_published_refinements_are_read(tmp_path, capsys):
    folder = os.environ["AVP_LLP_DIR"]
    out, extra = tmp_path / "ma.json", Path(folder) / "extra"
    if not extra.is_dir():
        pytest.skip("the published refinements are not beside the annotations")
    file = extra / "need_to_change.pkl"
    assert command("import", file, "--annotations", folder, "--out", out) == 0
    assert "811 labels lost both modalities" in capsys.readouterr().out
    classes = json.loads(out.read_text())["classes"]
    found = RefinedLabels.read(out, classes)
    dropped = found.dropped()
    assert (dropped["audio"].sum(), dropped["visual"].sum()) == (1583, 3509)
    speech = classes.index("Speech")
    assert round(100 * dropped["visual"][speech] / 4988, 1) == 63.6
    ratios = NoiseRatios.read(extra / "noise_ratios.npz", classes)
    assert ratios.visual[speech] > 0.99 and 0.01 < ratios.audio.min() < ratios.audio.max() < 0.08
