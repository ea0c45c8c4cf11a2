"""Named presets `<encoder>-<decoder>-<task>[-weak][-official|-paper]`, composed from the table of recipes.

Without a suffix a preset trains by the published recipe with our recommended losses; `-official` adds what the authors'
code does, quirks included; `-paper` follows the text of the LEAP paper where it differs from the released code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from avplatform.config.recipes import RECIPES, Recipe
from avplatform.config.values import Options, merge
from avplatform.models.errors import unknown_name


def list_presets() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(_presets())


def preset_options(name: str) -> Options:
    """Return the options of a preset as the nested dictionary that a YAML file would hold.

    Raises:
        UsageError: no such preset; names the nearest.

    Example:
        >>> preset_options("han-mmil-avvp-weak-official")["optim"]["lr"]
        0.0003
    """
    presets = _presets()
    if name not in presets:
        raise unknown_name("preset", name, presets)
    if name.endswith(("-official", "-paper")):
        return {"precision": "no", **presets[name]}  # the authors trained in single precision
    return presets[name]


def _presets() -> dict[str, Options]:
    han_weak = _cell("han", "mmil", "avvp", "weak", RECIPES["han"])
    han_pseudo = _cell("han", "mmil", "avvp", "pseudo", RECIPES["han"])
    leap = _cell("han", "leap", "avvp", "pseudo", RECIPES["leap"], task_config={"avss": "official"})
    released = {"form": "released", "score_gain": None, "score_bias": None}
    as_written = {
        "form": "paper",
        "heads": 1,
        "shared_video_classifier": True,
        "score_gain": None,
        "score_bias": None,
    }
    valor = merge(
        _cell("han", "mmil", "avvp", "pseudo", RECIPES["valor"]),
        {
            "encoder_config": {"heads": 8, "hidden": 1024, "update": "sequential"},
            "task_config": {"objective": "valor"},
        },
    )
    valor_plus = merge(
        _cell("han", "mmil", "avvp", "pseudo", RECIPES["valor-plus"]),
        {
            "encoder_config": {"width": 256, "heads": 8, "hidden": 1024, "layers": 4, "stacked": True,
                               "update": "sequential"},
            "task_config": {"objective": "valor"},
        },
    )  # fmt: skip
    ave = _cell("ave", "dch", "avel", "full", RECIPES["ave"])
    ave_weak = _cell("ave", "dch", "avel", "weak", RECIPES["ave-weak"])
    soft_margin = {
        "task_config": {"head_loss": "soft_margin"},
        "shuffle": False,
        "drop_last": True,
        "validate_every": 5,
    }
    mmpyr = _cell("mmpyr", "mmil", "avvp", "weak", RECIPES["mmpyr"])
    mmpyr_leap = _cell(
        "mmpyr", "leap", "avvp", "pseudo", RECIPES["leap"], task_config={"avss": "official"}
    )
    slots = {"encoder_config": {"official_slot_order": True}}
    psp = _cell("psp", "dch", "avel", "full", RECIPES["psp"])
    psp_weak = _cell("psp", "dch", "avel", "weak", RECIPES["psp-weak"])
    cmbs = _cell("cmbs", "dch", "avel", "full", RECIPES["cmbs"])
    cmbs_weak = _cell(
        "cmbs",
        "dch",
        "avel",
        "weak",
        RECIPES["cmbs-weak"],
        task_config={"head_loss": "soft_margin"},
    )
    on_test = {"select_on": "test"}
    psp_loop = {**on_test, "validate_every": 5, "drop_last": True}
    double = {"precision": "float64"}  # CMBS's script converts its model
    dmrn = {"encoder_config": {"variant": "dmrn"}, "decoder_config": {"form": "dmrn"}}
    return {
        "han-mmil-avvp": han_pseudo,
        "han-mmil-avvp-weak": han_weak,
        "han-mmil-avvp-weak-official": han_weak,
        "han-leap-avvp": leap,
        "han-leap-avvp-official": merge(
            leap, {"decoder_config": released, "task_config": {"label_texts": "official"}}
        ),
        "han-leap-avvp-paper": merge(
            _cell("han", "leap", "avvp", "pseudo", RECIPES["leap-paper"]),
            {
                "decoder_config": as_written,
                "task_config": {"avss": "paper", "global_term": "twice"},
            },
        ),
        "han-leap-avvp-weak": _cell("han", "leap", "avvp", "weak", RECIPES["leap"]),
        "han-dch-avvp": _cell("han", "dch", "avvp", "pseudo", RECIPES["han"]),
        "han-dch-avvp-weak": _cell("han", "dch", "avvp", "weak", RECIPES["han"]),
        "valor-mmil-avvp": valor,
        "valor-mmil-avvp-official": valor,
        "valorplus-mmil-avvp-official": valor_plus,
        "valorplusplus-mmil-avvp-official": merge(
            valor_plus, {"seed": RECIPES["valor-plusplus"].seed}
        ),
        "ave-dch-avel": ave,
        "ave-dch-avel-official": merge(ave, soft_margin),
        "ave-dch-avel-weak": ave_weak,
        "ave-dch-avel-weak-official": merge(ave_weak, {**soft_margin, "select_on": "last"}),
        "dmrn-dch-avel": merge(ave, dmrn),
        "dmrn-dch-avel-official": merge(merge(ave, soft_margin), dmrn),
        "ave-leap-avel": _cell("ave", "leap", "avel", "full", RECIPES["ave"]),
        "ave-leap-avel-weak": _cell("ave", "leap", "avel", "weak", RECIPES["ave-weak"]),
        "mmpyr-mmil-avvp": _cell("mmpyr", "mmil", "avvp", "pseudo", RECIPES["mmpyr"]),
        "mmpyr-mmil-avvp-weak": mmpyr,
        "mmpyr-mmil-avvp-weak-official": merge(mmpyr, slots),
        "mmpyr-leap-avvp": mmpyr_leap,
        "mmpyr-leap-avvp-official": merge(
            mmpyr_leap, {"decoder_config": released, "task_config": {"label_texts": "official"}}
        ),
        "mmpyr-leap-avvp-paper": merge(
            _cell("mmpyr", "leap", "avvp", "pseudo", RECIPES["leap-paper"]),
            {
                "decoder_config": as_written,
                "task_config": {"avss": "paper", "global_term": "twice"},
            },
        ),
        "psp-dch-avel": psp,
        "psp-dch-avel-official": merge(
            psp, {**psp_loop, "batch_order": "psp-full", "task_config": {"pair_target": "official"}}
        ),
        "psp-dch-avel-weak": psp_weak,
        "psp-dch-avel-weak-official": merge(
            psp_weak,
            {
                **psp_loop,
                "batch_order": "psp-weak",
                "task_config": {"head_loss": "bce", "weak_target": "prob"},
            },
        ),
        "psp-leap-avel": _cell("psp", "leap", "avel", "full", RECIPES["psp"]),
        "psp-leap-avel-weak": _cell("psp", "leap", "avel", "weak", RECIPES["psp-weak"]),
        "cmbs-dch-avel": cmbs,
        "cmbs-dch-avel-official": merge(cmbs, {**on_test, **double}),
        "cmbs-dch-avel-weak": cmbs_weak,
        "cmbs-dch-avel-weak-official": merge(
            cmbs_weak, {**on_test, **double, "task_config": {"weak_relevance": "official"}}
        ),
        "cmbs-leap-avel": _cell("cmbs", "leap", "avel", "full", RECIPES["cmbs"]),
        "cmbs-leap-avel-weak": _cell("cmbs", "leap", "avel", "weak", RECIPES["cmbs-weak"]),
        "ave-mmil-avel": _cell("ave", "mmil", "avel", "full", RECIPES["ave"]),
        "ave-mmil-avel-weak": _cell("ave", "mmil", "avel", "weak", RECIPES["ave-weak"]),
    }


def _cell(
    encoder: str, decoder: str, task: str, supervision: str, recipe: Recipe, **options: Any
) -> Options:
    """Return the options of one cell trained by one recipe."""
    return {
        "task": task,
        "encoder": encoder,
        "decoder": decoder,
        "supervision": supervision,
        "optim": dataclasses.asdict(recipe.optim),
        "schedule": dataclasses.asdict(recipe.schedule),
        **{
            k: getattr(recipe, k)
            for k in ("epochs", "batch_size", "seed", "select_on", "ties", "shuffle", "drop_last")
        },
        **options,
    }
