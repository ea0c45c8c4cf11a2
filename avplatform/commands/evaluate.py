"""`avplatform eval`: score a saved model or run on a split."""

from __future__ import annotations

from avplatform.commands.flags import parse_flags
from avplatform.evaluation.options import EvalOptions
from avplatform.evaluation.scoring import score_model


def run(args: list[str], prog: str) -> int:
    """Score a model as the flags say."""
    score_model(parse_flags(EvalOptions, args, prog))
    return 0
