"""avplatform: any audio-visual encoder, any event decoder, any task, from features to an event timeline."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from avplatform.version import __version__

__all__ = ["__version__"]

# On a busy machine, OpenMP threads that spin while they wait for each other make two threads slower than one.
# This must be set before torch loads its OpenMP runtime; a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Likewise: DDP warns, in 500 characters a process, that a model could be told that it uses all its parameters.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def check_own_packages() -> None:
    """Check that `models` and `tasks` are avplatform's own: both names are common.

    Raises:
        ImportError: another package of that name comes first on the path; the message names its folder.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("models", "tasks"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"avplatform's package '{name}' is missing beside {home / 'avplatform'}; install it again")
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
        folder = Path(places[0]).resolve() if places else Path("?")
        folder = folder.parent if folder.suffix else folder
        if folder.parent != home:
            raise ImportError(
                f"another package named '{name}' at {folder} hides avplatform's own at {home / name}; run from another "
                "folder, rename it, or take its parent off PYTHONPATH"
            )


check_own_packages()
