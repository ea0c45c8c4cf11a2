"""Templates of model and dataset cards, as package data, and the texts that fill them."""

from __future__ import annotations

from importlib.resources import files


def template(name: str) -> str:
    """Return the text of a template, such as "model_card.md.jinja"."""
    return files("avplatform.hub_cards").joinpath(name).read_text(encoding="utf-8")
