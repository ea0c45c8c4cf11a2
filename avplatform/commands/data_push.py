"""`avplatform data push`: a store, with its card, to a dataset repository on the Hub."""

from avplatform.commands.push import run_data as run

__all__ = ["run"]
