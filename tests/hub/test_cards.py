"""Cards are valid, honest, and their code runs."""

import re
from importlib.resources import files
from typing import get_args, get_type_hints

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries

from avplatform.config.build import published_config
from avplatform.config.compose import compose
from avplatform.config.optim import ScheduleConfig
from avplatform.data import open_data
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.store.card import card_of_spec, render_dataset_card
from avplatform.data.store.schema import Manifest
from avplatform.hub.cards import SCHEDULES, render_model_card
from avplatform.hub.eval_results import eval_text
from avplatform.hub_cards.render import PLACEHOLDER
from avplatform.models.config import config_to_dict
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.registry import TASKS
from avplatform.tasks.strategies import strategies
from avplatform.version import __version__
from tests.hub.conftest import HUB_DATA, INTERVALS, RESULTS, results_of
from tests.hub.fake_hub import metadata_errors
from tests.models.cells import CELLS, build


def config(task="avel", encoder="ave", decoder="leap"):
    return build(task, encoder, decoder).config.to_dict()


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def code_of(card):
    return re.search(r"```python\n(.*?)```", card, flags=re.S)[1]


def names_after(code):
    names: dict = {}
    exec(compile(code, "card", "exec"), names)
    return names


def test_the_model_index_holds_the_test_results_unrounded():
    card = ModelCard(render_model_card(RESULTS, config()))
    found = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert found == RESULTS["test"] and RESULTS["test"]["accuracy"] == 59.876
    assert {r.dataset_split for r in card.data.eval_results} == {"test"}
    assert card.data.library_name == "avplatform" and card.data.license == "apache-2.0"
    assert metadata_errors(str(card)) == []


def test_the_ten_figures_of_avvp_are_all_there():
    names = [
        f"{level}_{kind}"
        for level in ("segment", "event")
        for kind in ("A", "V", "AV", "Type@AV", "Event@AV")
    ]
    scores = {name: 10.0 + n / 3 for n, name in enumerate(names)}
    results = results_of(
        "avvp", "han", "mmil", validation=scores, test={n: v + 1 for n, v in scores.items()}
    )
    text = render_model_card(results, config("avvp", "han", "mmil"))
    assert {r.metric_type: r.metric_value for r in ModelCard(text).data.eval_results} == results[
        "test"
    ]
    for name in names:
        assert f"| {name} | {scores[name]:.2f} | {scores[name] + 1:.2f} |" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_warned_of_first_and_only_then(synthetic):
    card = render_model_card(
        {**RESULTS, "synthetic": synthetic, "data": "owner/features"}, config()
    )
    first_line = ModelCard(card).text.strip().splitlines()[0]
    assert first_line.startswith("> **Trained on synthetic features**") == synthetic
    assert ("synthetic" in card) == synthetic


def test_data_are_linked_where_they_were_read_from_the_hub():
    assert "datasets" not in metadata(render_model_card(RESULTS, config()))
    card = ModelCard(render_model_card({**RESULTS, **HUB_DATA}, config()))
    (result,) = card.data.eval_results
    assert card.data.datasets == ["owner/clips"]
    assert (result.dataset_type, result.dataset_revision) == ("owner/clips", "0" * 40)
    assert f"Read from the dataset `owner/clips` at commit `{'0' * 40}`" in card.text


def test_evaluation_results_are_those_of_the_hubs_client():
    assert eval_text(RESULTS) == "" == eval_text({**RESULTS, **HUB_DATA, "test": None})
    (entry,) = parse_eval_result_entries(
        yaml.safe_load(eval_text({**RESULTS, **HUB_DATA, **INTERVALS}))
    )
    assert (entry.dataset_id, entry.dataset_revision) == ("owner/clips", "0" * 40)
    assert (entry.task_id, entry.value) == ("accuracy", 59.876)
    assert entry.notes == (
        "percent on the test split; 95 % interval 57.12 to 62.50; epoch selected on validation; "
        f"SYNTHETIC features; avplatform {__version__}"
    )
    real = {**RESULTS, **HUB_DATA, "synthetic": False}
    real["selection"] = {**RESULTS["selection"], "split": "test"}
    assert "SYNTHETIC" not in eval_text(real) and "selected on the TEST split" in eval_text(real)


def test_figures_have_their_intervals_and_say_what_these_cover():
    card = render_model_card({**RESULTS, **INTERVALS}, config())
    assert "| metric | validation | test | test interval |" in card
    assert "| accuracy | 61.25 | 59.88 | 57.12–62.50 |" in card
    assert "Intervals: 95 %, over 1,000 resamples of the 402 test videos." in card
    assert "interval" not in render_model_card(RESULTS, config()).partition("## Use")[0]


def test_the_card_shows_the_pictures_beside_it():
    card = render_model_card(RESULTS, config(), plots=["curves.png", "other.png"])
    assert re.findall(r"!\[.*\]\((.*)\)", card) == ["plots/curves.png", "plots/other.png"]
    assert "the figure that selects the epoch (synthetic features).*" in card
    assert "](plots" not in render_model_card(RESULTS, config())


def test_the_card_says_what_the_features_are_and_how_they_are_made():
    def card(own, **changes):
        return render_model_card({**RESULTS, "synthetic": False, **changes}, own, "me/x")

    of_dataset = config_to_dict(published_config(compose(("test", {"preset": "ave-leap-avel"}))))
    text = card(of_dataset)
    assert "| visual | [10, 7, 7, 512] | `vgg19-pool5` |" in text and "published, if" in text
    assert "avplatform extract VIDEOS --out features --backbones ave\n" in text
    assert "avplatform predict VIDEO --model me/x --recipe ave\n" in text
    recipe = {"name": "custom", "audio": "soundnet8", "visual": "clip", "version": 1}
    features = {**of_dataset["features"], "extractors": {"recipe": recipe}}
    text = card({**of_dataset, "features": features})
    assert "--audio soundnet8 --visual clip --motion none\n" in text and "uses the same" in text
    assert "avplatform predict VIDEO --model me/x\n" in text
    text = card(config())
    assert "ask the author of this model" in text and "avplatform extract" not in text
    text = card(of_dataset, synthetic=True)
    assert "| audio | [10, 128] | drawn by code |" in text and "no extractor makes them" in text


@pytest.mark.parametrize(
    ("synthetic", "labels", "says", "silent"),
    [
        (False, None, "The labels and features belong to the authors of AVE", "drawn by"),
        (True, "drawn with the label shares of AVE", "(Apache-2.0). Their labels: drawn", "belong"),
        (True, "AVE annotations", "The labels belong to the authors of AVE", "labels and features"),
    ],
)
def test_the_card_says_whose_the_training_data_are(synthetic, labels, says, silent):
    about = {**HUB_DATA["training_data"], "labels": labels, "hub": None}
    text = render_model_card({**RESULTS, "synthetic": synthetic, "training_data": about}, config())
    section = text.partition("## Training")[2].partition("## Classes")[0]
    assert "(classes of AVE): 3,339 train, 402 validation, 402 test clips." in section
    assert says in section and silent not in section
    assert "covers the weights alone" in section


def test_the_recipe_names_optimiser_and_schedule():
    optim = {"name": "adamw", "lr": 0.0003, "weight_decay": 0.01, "clip_norm": None}
    schedule = {"name": "epoch_decay", "factor": 0.1, "every": 10, "after": 0.75}
    text = render_model_card({**RESULTS, "optim": optim, "schedule": schedule}, config())
    assert "| optimiser | adamw, learning rate 0.0003, weight decay 0.01 |" in text
    assert "| schedule | epoch_decay, factor 0.1, every 10 |" in text
    names = ScheduleConfig.__dataclass_fields__
    assert set(SCHEDULES) | {"constant"} == set(get_args(get_type_hints(ScheduleConfig)["name"]))
    assert all(set(options) <= set(names) for options in SCHEDULES.values())


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ("validation", "Epoch 3 was selected on validation (accuracy 61.25)"),
        ("test", "selected on the test split"),
        ("none", "The last epoch (3) was kept"),
    ],
)
def test_the_card_says_how_the_epoch_was_chosen(split, sentence):
    results = {**RESULTS, "selection": {**RESULTS["selection"], "split": split}}
    assert sentence in render_model_card(results, config())


def test_a_model_that_was_not_scored_has_no_figures():
    text = render_model_card(
        {**RESULTS, "validation": None, "test": None, "selection": None}, config()
    )
    assert "model-index" not in metadata(text) and "saved without an evaluation" in text


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_the_code_of_the_card_runs(cell, tmp_path):
    model = build(*cell)
    model.save_pretrained(tmp_path)
    code = code_of(
        render_model_card(results_of(*cell), model.config.to_dict(), repo_id=str(tmp_path))
    )
    names = names_after(code)
    (stated,) = re.findall(r"each \[(.*)\]", code)
    predicted = {name for name, found in vars(names["parse"].segment).items() if found is not None}
    assert names["scores"].keys() == predicted
    for score in names["scores"].values():
        assert list(score.shape) == [int(n) for n in stated.split(",")]
    assert set(TASKS[cell[0]].decisions.split(":")[0].split(", ")) <= set(names["decisions"])


def test_every_cell_of_the_platform_is_described_and_every_reference_known():
    for part in (*TASKS.values(), *ENCODERS.values(), *DECODERS.values()):
        assert (
            part.about and part.paper.authors and part.paper.citation.startswith("@inproceedings{")
        )
    text = render_model_card(RESULTS, config())
    assert (
        "(Zhou et al., ECCV 2024)" in text
        and "zhou2024leap" in text
        and "tian2018ave" in text
        and "tian2020" not in text
    )


STRATEGIES = {
    "ma-mmil-avvp-weak-official": ["wu2021exploring"],
    "jomold-mmil-avvp-weak-official": ["cheng2022joint"],
    "han-cvcms-avvp-weak-official": ["lin2021exploring"],
    "han-cmpae-avvp-weak-official": ["gao2023cmpae", "cheng2022joint"],
    "mgn-group-avvp-weak-official": ["mo2022mgn"],
    "dhhn-mmil-avvp-weak-official": ["jiang2022dhhn"],
    "bps-mmil-avvp-weak": ["rachavarapu2023boosting"],
    "han-mmil-avvp-weak-official": [],
}


def card_of(preset, **results):
    """Return the card of a model of a preset, which is not built."""
    run = compose(("test", {"preset": preset}))
    model = config_to_dict(published_config(run))
    return render_model_card(results_of("avvp", run.encoder, run.decoder, **results), model)


@pytest.mark.parametrize("preset", STRATEGIES)
def test_a_model_cites_the_papers_of_its_training(preset):
    text = card_of(preset)
    cited = set(re.findall(r"@inproceedings\{(\w+),", text))
    assert cited == {"tian2020avvp", *STRATEGIES[preset]}
    assert ("our own design after the idea of BPS" in text) == preset.startswith("bps")


def test_refined_labels_are_cited_by_their_rule():
    def origin(**made):
        return card_of("jomold-mmil-avvp-weak", label_origins={"noise_ratios": made})

    assert "| noise ratios | noise-ratio by `runs/e` |" in origin(
        rule="noise-ratio", model="runs/e"
    )
    assert "noise ratios" not in card_of("jomold-mmil-avvp-weak")
    config = {"task_config": {"refined": "labels.json"}}
    exchange = {"refined": {"rule": "exchange", "model": "runs/base"}}
    drop = {"refined": {"rule": "drop", "audio": [], "visual": ["Speech"]}}
    assert [paper.paper for _, paper in strategies(config, exchange)] == ["MA"]
    assert [paper for _, paper in strategies(config, drop)] == [None]
    card = card_of("han-mmil-avvp-weak", label_origins=drop)
    assert "| refined | drop no visual label of Speech |" in card


@pytest.mark.parametrize("task", ["avel", "ovavel"])
def test_only_the_evidence_decoder_learns_mutually(task):
    """The weight of its loss is 1 by default, also in models whose decoder does not read it."""
    assert strategies(config(task)) == []
    found = strategies(config(task, decoder="cmpae"))
    assert [paper.paper for _, paper in found] == ["JoMoLD", "CMPAE"]


def test_a_model_trained_on_pseudo_labels_cites_their_paper():
    pseudo = {"task_config": {"supervision": "pseudo"}}
    assert [paper.paper for _, paper in strategies(pseudo)] == ["VALOR"]
    card = card_of("valor-mmil-avvp")
    assert card.count("@inproceedings{lai2023modality") == 1
    assert "one stream after the other, as in VALOR" in card


def test_a_strangers_part_is_called_a_stranger():
    text = render_model_card({**RESULTS, "encoder": "gated"}, config())
    assert "`gated` was registered by another package." in text


RANKED, PAY = "hardly ever decided", "and clips that hold none pay for it"


@pytest.mark.parametrize(
    ("cell", "results", "says", "silent"),
    [
        (("avel", "ave", "leap"), {}, ["which this model lacks", RANKED, PAY], "With the bank"),
        (("avvp", "han", "leap"), {"bank_clips": 400}, ["With the bank", RANKED, PAY], "lacks"),
        (("ovavel", "identity", "cosine"), {}, ["from the same joint model"], RANKED),
        (("avel", "ave", "dch"), {}, [], "never finds"),
    ],
)
def test_limits_say_what_becomes_of_labels_without_training(cell, results, says, silent):
    text = render_model_card(results_of(*cell, **results), config(*cell))
    limits = text.partition("## Limits")[2].partition("## Citation")[0]
    assert all(part in limits for part in says) and silent not in limits
    assert ("simulated features alone" in limits) == bool(says)


def test_a_closed_model_is_said_to_miss_the_unseen_classes_of_its_data():
    cell = ("ovavel", "han", "mmil")
    for unseen in (0, 4156):
        details = {"test": {"groups": {"seen": 1664, "unseen": unseen}}}
        limits = render_model_card(results_of(*cell, details=details), config(*cell))
        assert ("never finds one of the unseen classes" in limits) == bool(unseen)


def test_learned_label_embeddings_promise_nothing_for_other_labels():
    learned = {**config("avvp", "han", "leap"), "learned_labels": True}
    text = render_model_card(results_of("avvp", "han", "leap"), learned)
    assert "never trained on" not in text and "other class texts" not in text


def test_the_card_states_recipe_and_classes_and_no_gap():
    text = render_model_card(RESULTS, config())
    for part in (
        "1,234,567",
        "bf16",
        "`abc`",
        "Male speech, man speaking; Bark",
        f'from_pretrained("{PLACEHOLDER}")',
    ):
        assert part in text
    assert "More Information Needed" not in text and "| None |" not in text


def test_the_dataset_card_counts_what_the_manifest_counts(small_stores):
    manifest = Manifest.read(small_stores["avvp"])
    text = render_dataset_card(manifest)
    assert DatasetCard(text).text.strip().startswith("> **Synthetic features.**")
    for name, split in manifest.splits.items():
        assert f"| {name} | {split.rows} | {len(split.shards)} |" in text
    assert manifest.checksum in text and "| visual | float16 | [10, 2048] |" in text
    data_files = metadata(text)["configs"][0]["data_files"]
    assert [f["split"] for f in data_files] == list(manifest.splits)
    for entry in data_files:
        assert list(small_stores["avvp"].glob(entry["path"]))


def test_the_dataset_card_reads_dataset_json_too_and_lists_defects(small_stores):
    manifest = Manifest.read(small_stores["avel"])
    data = yaml.safe_load(manifest.to_json())
    assert render_dataset_card(data) == render_dataset_card(manifest)
    assert "Known defects" not in render_dataset_card(data)
    data["spec"]["provenance"]["defects"] = ["6 spans of no length"]
    data["spec"]["synthetic"] = False
    text = render_dataset_card(data)
    assert (
        "## Known defects" in text
        and "* 6 spans of no length" in text
        and "Synthetic features" not in text
    )


def test_the_code_of_the_dataset_card_runs(small_stores):
    text = render_dataset_card(
        Manifest.read(small_stores["avel"]), repo_id=str(small_stores["avel"])
    )
    names = names_after(code_of(text))
    assert (
        len(names["batch"]) == 2
        and names["data"].checksum == open_data(small_stores["avel"], task="avel").checksum
    )


def test_a_dataset_not_written_yet_has_a_card_without_counts():
    llp = DATASETS["llp"]
    text = card_of_spec(llp.simulated_spec(llp.preset()))
    assert (
        DatasetCard(text).data.pretty_name and "| visual |" in text and "Basketball_bounce" in text
    )
    assert "| split |" not in text and "configs" not in metadata(text)


def test_the_templates_are_package_data():
    names = {
        file.name
        for file in files("avplatform.hub_cards").iterdir()
        if file.name.endswith(".jinja")
    }
    assert names == {
        "converted_card.md.jinja",
        "collection_card.md.jinja",
        "dataset_card.md.jinja",
        "model_card.md.jinja",
        "use.md.jinja",
    }
