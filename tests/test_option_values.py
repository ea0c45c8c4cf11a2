"""Options from YAML have the kind that their type says, or are refused by name."""

import dataclasses
import itertools
import math
import typing

import pytest

from avplatform.config.compose import compose
from avplatform.config.run import default_config
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError
from avplatform.models.typed_values import convert
from avplatform.tasks.registry import TASKS

STRANGE = [
    None,
    True,
    3.5,
    "abc",
    [1],
    {"a": 1},
    -1,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    "1e400",
    [],
    ["a", 1],
]


def options(config, above=()):
    """Yield the path, the type and the value of every option."""
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from options(value, (*above, field.name))
        else:
            yield (*above, field.name), kinds[field.name], value


def nested(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_option_refuses_values_of_another_kind_by_name(task):
    tried = set()
    for encoder, decoder in itertools.product(sorted(ENCODERS), sorted(DECODERS)):
        cell = {"task": task, "encoder": encoder, "decoder": decoder}
        for path, kind, _ in options(default_config(**cell)):
            for value in STRANGE:
                if (path, str(kind), repr(value)) in tried:
                    continue
                tried.add((path, str(kind), repr(value)))
                try:
                    found = compose(("here", {**cell, **nested(path, value)}))
                except UsageError as error:
                    assert path[-1] in str(error), (
                        path,
                        value,
                        str(error),
                    )  # and nothing but a UsageError
                    continue
                for name in path:
                    found = getattr(found, name)
                assert convert(kind, found) == found, (path, kind, value, found)
    assert len(tried) > 500


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_default_is_of_its_own_kind(task):
    for encoder, decoder in itertools.product(sorted(ENCODERS), sorted(DECODERS)):
        for path, kind, value in options(default_config(task, encoder, decoder)):
            assert convert(kind, value) == value, path


@pytest.mark.parametrize(
    ("values", "option", "value"),
    [
        ({"optim": {"lr": "1e-4"}}, "optim.lr", 1e-4),  # a text in YAML 1.1
        ({"optim": {"lr": 1}}, "optim.lr", 1.0),
        ({"task_config": {"avss": False}}, "task_config.avss", "off"),  # `off` is False in YAML 1.1
        ({"optim": {"clip_norm": None}}, "optim.clip_norm", None),
        ({"optim": {"betas": [0.8, "0.9"]}}, "optim.betas", (0.8, 0.9)),
        ({"held_out": ["Bark", "Rats, Mouse"]}, "held_out", ("Bark", "Rats, Mouse")),
    ],
)
def test_what_yaml_can_write_becomes_what_was_meant(values, option, value):
    found = compose(("here", values))
    for name in option.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"held_out": "Bark"}, "here: option 'held_out' is 'Bark'; it must be of kind tuple"),
        (
            {"optim": {"betas": [0.9]}},
            "here: option 'optim.betas' is [0.9]; it must be of kind tuple[float, float]",
        ),
        ({"streaming": None}, "here: option 'streaming' is None; it must be of kind bool"),
        ({"epochs": True}, "here: option 'epochs' is True; it must be of kind int"),
        ({"task_config": {"avss": "ofical"}}, "did you mean 'official'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_kind(values, message):
    with pytest.raises(UsageError) as caught:
        compose(("here", values))
    assert message in str(caught.value)


def test_infinite_numbers_are_refused_from_the_command_line_too():
    config = default_config("avel", "ave", "leap")
    for path, kind, _ in options(config):
        if kind is not float:
            continue
        owner = config
        for name in path[:-1]:
            owner = getattr(owner, name)
        with pytest.raises(
            UsageError, match=rf"{path[-1]} is inf; it must (be finite|be a? ?positive|lie between)"
        ):
            dataclasses.replace(owner, **{path[-1]: math.inf})
