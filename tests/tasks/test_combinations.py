"""Options that nothing would read and parts that do not go together are refused, others are not."""

import pytest

from avplatform.config.build import build_task, make_model_config
from avplatform.config.compose import compose
from avplatform.config.presets import list_presets, preset_options
from avplatform.data.adapters.registry import adapter_of_task
from avplatform.models.errors import UsageError
from tests.models.cells import SUPERVISED_CELLS, cell, random_batch


def checked(name, options):
    """Check a cell, such as avel/ave/leap/full, with nested options over its defaults."""
    task, encoder, decoder, supervision = name.split("/")
    named = {"task": task, "encoder": encoder, "decoder": decoder, "supervision": supervision}
    config = compose(("test", {**named, **options}))
    return make_model_config(config, build_task(config), adapter_of_task(task).features)


UNREAD = [
    ("avvp/han/leap/weak", "task", {"segment_weight": 0.5}),
    ("avvp/han/leap/weak", "decoder", {"blocks": 3}),
    ("avel/ave/leap/full", "task", {"head_loss": "soft_margin"}),
    ("avel/cmbs/dch/full", "task", {"head_loss": "soft_margin"}),
    ("avel/ave/dch/full", "task", {"pair_weight": 3.0}),
    ("avel/psp/dch/weak", "task", {"pair_weight": 3.0}),
    ("avel/psp/dch/weak", "task", {"pair_target": "official"}),
    ("avel/psp/leap/full", "task", {"auxiliary_weight": 0.5}),
    ("avel/cmbs/dch/full", "task", {"auxiliary_weight": 0.5}),
    ("avel/psp/dch/full", "task", {"gate_loss": "plain"}),
    ("avel/cmbs/leap/weak", "task", {"gate_loss": "plain"}),
    ("avel/cmbs/leap/weak", "task", {"weak_relevance": "official"}),
    ("avel/ave/dch/full", "task", {"segment_loss": "bce"}),
    ("avel/ave/leap/weak", "task", {"video_loss": "off"}),
    ("avel/ave/mmil/full", "task", {"decision": "masked"}),
    ("avel/ave/dch/full", "task", {"weak_target": "prob"}),
    ("avel/ave/leap/full", "task", {"weak_pool": "mean"}),
    ("avel/ave/dch/weak", "task", {"weak_pool": "mean"}),
    ("avel/ave/dch/full", "task", {"label_set": "events"}),
    ("avel/ave/mmil/full", "task", {"label_texts": "first_phrase"}),
    ("avel/ave/leap/full", "task", {"avss_weight": 2.0}),
    ("avel/ave/leap/full", "task", {"empty_pair": "one"}),
    ("avvp/han/mmil/pseudo", "task", {"visual_smooth": 0.5}),
    ("avvp/han/mmil/weak", "task", {"segment_weight": 0.5}),
    ("avvp/han/dch/weak", "task", {"global_term": "drop"}),
    ("avvp/han/leap/pseudo", "task", {"global_weight": 2.0}),
    ("avvp/han/mmil/weak", "task", {"contrast_weight": 2.0}),
    ("avvp/han/mmil/weak", "task", {"contrast": "jomold", "contrast_visual": "encoded"}),
    ("avvp/han/mmil/weak", "task", {"noise_ratios": "ratios.json"}),
    (
        "avvp/han/mmil/weak",
        "task",
        {"denoise": "self", "denoise_warm_up": "off", "denoise_warm_up_epochs": 2.0},
    ),
    ("avvp/han/mmil/pseudo", "task", {"smooth_epochs": 2}),
    ("avvp/han/leap/pseudo", "task", {"avss_eps": 0.5}),
    ("avvp/han/mmil/pseudo", "task", {"label_texts": "official"}),
    ("avel/ave/leap/full", "encoder", {"residual_blocks": 2}),
    ("avvp/han/mmil/pseudo", "encoder", {"map_reduction": "attention"}),
    ("avel/ave/dch/full", "decoder", {"weighting": True}),
    ("avel/psp/dch/full", "decoder", {"gamma": 0.1}),
    ("avel/cmbs/dch/full", "decoder", {"official_init": False}),
    ("avel/psp/leap/full", "decoder", {"streams": "fused", "combine": "or"}),
    ("avel/cmbs/leap/full", "decoder", {"streams": "fused", "reads": "queries"}),
    ("avel/psp/leap/full", "decoder", {"streams": "fused", "shared_video_classifier": True}),
    ("avel/cmbs/leap/weak", "decoder", {"classify_queries": True}),
    ("avvp/han/leap/pseudo", "decoder", {"form": "paper", "heads": 1, "attention_dropout": 0.5}),
    ("avel/ave/leap/full", "decoder", {"form": "paper", "heads": 1, "attention_dropout": 0.5}),
]


@pytest.mark.parametrize(("name", "part", "options"), UNREAD)
def test_an_option_that_nothing_would_read_is_refused_by_name(name, part, options):
    with pytest.raises(UsageError, match=rf"{part}_config\.({'|'.join(options)})"):
        checked(name, {f"{part}_config": options})


READ = [
    ("avel/ave/dch/full", "task", {"head_loss": "soft_margin"}),
    ("avel/psp/mmil/full", "task", {"pair_weight": 3.0}),
    ("avel/cmbs/mmil/full", "task", {"auxiliary_weight": 0.5}),
    ("avel/cmbs/dch/full", "task", {"gate_loss": "plain"}),
    ("avel/cmbs/leap/full", "task", {"gate_loss": "plain"}),
    ("avel/ave/leap/full", "task", {"segment_loss": "bce"}),
    ("avel/ave/leap/full", "task", {"video_loss": "off"}),
    ("avel/psp/dch/weak", "task", {"weak_target": "prob"}),
    ("avel/ave/leap/weak", "task", {"weak_pool": "mean"}),
    ("avel/ave/dch/full", "task", {"avss": "paper", "empty_pair": "one"}),
    ("avvp/han/mmil/weak", "task", {"visual_smooth": 0.5}),
    ("avvp/han/leap/weak", "task", {"objective": "basic", "segment_weight": 0.5}),
    ("avvp/han/mmil/weak", "task", {"objective": "basic", "global_term": "drop"}),
    ("avvp/han/leap/pseudo", "task", {"avss": "official", "avss_eps": 0.5}),
    ("avvp/han/mmil/weak", "task", {"global_weight": 2.0}),
    ("avvp/han/leap/pseudo", "task", {"visual_weight": 2.0}),
    ("avvp/psp/mmil/weak", "task", {"contrast": "ma", "contrast_visual": "encoded"}),
    ("avvp/han/mmil/weak", "task", {"smooth_epochs": 2}),
    ("avel/cmbs/dch/weak", "decoder", {"form": "ave"}),
]


@pytest.mark.parametrize(("name", "part", "options"), READ)
def test_an_option_that_is_let_through_changes_the_loss(name, part, options):
    checked(name, {f"{part}_config": options})
    plain, changed = cell(*name.split("/")), cell(*name.split("/"), **{f"{part}_options": options})
    data = random_batch(name.split("/")[0], clips=3)
    losses = []
    for found in (plain, changed):
        output = found.model.eval()(data.audio, data.visual, data.motion)
        terms = found.task.loss(output.parse, output.encoding, data)
        losses.append({key: float(value.detach()) for key, value in terms.items()})
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", SUPERVISED_CELLS)
def test_the_defaults_of_every_cell_are_let_through(name):
    checked("/".join(name), {})


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_let_through(name):
    options = preset_options(name)
    checked(
        "/".join(options[part] for part in ("task", "encoder", "decoder", "supervision")), options
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("avel/cmbs/dch/full", {"form": "ave", "weighting": False}, "takes cmbs"),
        ("avel/cmbs/dch/full", {"form": "psp"}, "takes cmbs"),
        (
            "avel/cmbs/dch/full",
            {"weighting": True},
            "weighting is on; CMBS's head has full supervision",
        ),
        (
            "avel/cmbs/dch/weak",
            {"weighting": False},
            "weighting is off; CMBS's head has weak supervision",
        ),
    ],
)
def test_heads_that_do_not_fit_cmbs_are_refused_before_they_fail(name, options, message):
    with pytest.raises(UsageError, match=message):
        checked(name, {"decoder_config": options})


def test_valors_loss_is_refused_for_leap_whose_video_classifiers_it_would_not_train():
    with pytest.raises(UsageError, match="'valor' would not train"):
        checked("avvp/han/leap/pseudo", {"task_config": {"objective": "valor"}})


def test_label_embeddings_for_a_decoder_without_labels_are_refused():
    with pytest.raises(UsageError, match="mmil does not use label embeddings"):
        checked("avvp/han/mmil/pseudo", {"labels": {"embeddings": "learned"}})


@pytest.mark.parametrize("name", ["psp-dch-avel-official", "psp-dch-avel-weak-official"])
def test_psp_picks_among_every_fifth_epoch_as_its_script_does(name):
    options = preset_options(name)
    assert (
        options["validate_every"] == 5
        and options["select_on"] == "test"
        and options["ties"] == "latest"
    )
