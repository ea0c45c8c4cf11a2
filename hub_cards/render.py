"""Render the templates and the YAML metadata of cards."""

from __future__ import annotations

from typing import Any

import jinja2
import yaml

from avplatform.hub_cards import template

PLACEHOLDER = "<this folder or repository>"
"""Placeholder for the repository's id in a card that is not pushed yet."""


def metadata_text(metadata: dict[str, Any]) -> str:
    """Return the metadata of a card as YAML."""
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip()


def render(name: str, **values: Any) -> str:
    """Return the text of a template with its values filled in."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)
