"""JSON that was changed by hand: every entry of it, to every kind of value."""

import copy
import math

LEFT_OUT = "left out"
STRANGE = [None, True, 3.5, "abc", [1], {"a": 1}, -1, 0, 10**30, math.inf, [], {}, LEFT_OUT]


def paths(value, above=()):
    """Yield the path of every entry of nested mappings and lists."""
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in entries:
        yield (*above, key)
        yield from paths(inner, (*above, key))


def changed(content, path, value):
    """Return a copy with another value at a path, or without it."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value == LEFT_OUT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content
