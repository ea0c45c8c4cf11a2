"""The import options of all datasets in one dataclass, from which the command line is made."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import tyro

from avplatform.data.adapters import options as general
from avplatform.data.adapters.registry import DATASETS
from avplatform.models.errors import UsageError, unknown_name


def import_options() -> type[Any]:
    """Return a dataclass of the general options and those of every registered dataset."""
    names: Any = Literal[tuple(DATASETS)]
    own = dict.fromkeys(
        adapter.Options for adapter in DATASETS.values() if adapter.Options is not object
    )
    return dataclasses.make_dataclass(
        "ImportOptions",
        [("dataset", tyro.conf.Positional[names])],  # type: ignore[misc]
        bases=(*reversed(own), _Checked),
        namespace={"__doc__": general.ImportOptions.__doc__, "__module__": __name__},
        kw_only=True,
    )


@dataclasses.dataclass(kw_only=True)
class _Checked(general.ImportOptions):
    """Import options that refuse those of other datasets."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise unknown_name("dataset", self.dataset, DATASETS)
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; it must be at least 1")
        adapter = DATASETS[self.dataset]
        own = set(option_names(adapter.Options))
        for other in DATASETS.values():
            for name, plain in option_names(other.Options).items():
                if name not in own and getattr(self, name) != plain:
                    raise UsageError(
                        f"--{name.replace('_', '-')} does nothing for {self.dataset}; leave it out"
                    )
        adapter.check_options(self)


def option_names(options: type[Any]) -> dict[str, Any]:
    """Return the defaults of an adapter's options by name."""
    if not dataclasses.is_dataclass(options):
        return {}
    return {field.name: field.default for field in dataclasses.fields(options)}


ImportOptions = import_options()
"""The options of the built-in datasets."""
