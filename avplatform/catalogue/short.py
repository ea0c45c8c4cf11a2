"""Names of presets and large numbers, written short."""

from __future__ import annotations


def short_presets(names: tuple[str, ...]) -> list[str]:
    """Return preset names, with the suffixes of a common stem joined in brackets.

    Examples:
        >>> short_presets(("han-leap-avvp", "han-leap-avvp-official", "han-leap-avvp-paper"))
        ['han-leap-avvp[-official|-paper]']
    """
    stems: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = next((s for s in stems if name.startswith(f"{s}-")), None)
        if stem is None:
            stems[name] = []
        else:
            stems[stem].append(name.removeprefix(stem))
    return [stem + (f"[{'|'.join(rest)}]" if rest else "") for stem, rest in stems.items()]


def in_millions(count: int) -> str:
    """Return a number of parameters in millions, such as 45.6."""
    return f"{count / 1e6:.1f}"


def in_billions(count: int) -> str:
    """Return a number of operations in units of 10^9, such as 1.42."""
    return f"{count / 1e9:.2f}"
