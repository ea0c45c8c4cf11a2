"""`avplatform demo`: a web page on which models are tried in a browser."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import from_options, parse_flags
from avplatform.labels.assumed import Assumed
from avplatform.models.checks import at_least
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class DemoOptions:
    """Serve a page on which a video is uploaded, recorded or picked, and its timeline plays along.

    It listens on this machine only, unless --host says otherwise, and has no password.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ("training-free",)
    """run folders, model folders or hub ids; training-free: CLIP and CLAP, for any labels"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0: every one of this machine, for all who reach it"""
    port: int | None = None
    """port to listen on; default: the first free one from 7860 on"""
    queue: int = 32
    """videos that may wait; one is parsed at a time, and further ones are refused"""
    max_megabytes: int = 200
    """refuse larger files"""
    max_seconds: float = 600.0
    """refuse longer files"""
    max_gigapixels: float = 100.0
    """refuse files of more billions of pixels, which bounds the time too; 10 min of HD have 37"""
    recipe: str | None = None
    """features that the models read (llp, ave, lite, clip-clap); default: what their config says"""
    weights: tuple[str, ...] = ()
    """weights of the feature extractors: auto (fetch what is missing), NAME=FILE, or a folder"""
    window: int | None = None
    """seconds that a model sees at once; default: the length of its training clips"""
    hop: int | None = None
    """seconds from one window to the next; default: half the length of its training clips"""
    unseen: Assumed | None = None
    """labels never trained on: as rare as others (training, default), present, plain (no bank)"""
    cpu: bool = False
    """stay on the CPU"""
    threads: int = 0
    """CPU threads; 0: one per core of this machine"""


def run(args: list[str], prog: str) -> int:
    """Serve the page until Ctrl-C or SIGTERM."""
    options = parse_flags(DemoOptions, args, prog, config=(tyro.conf.FlagCreatePairsOff,))
    at_least(options, ("queue", "max_megabytes"), 1)
    at_least(options, "threads", 0)
    if options.port is not None and not 1 <= options.port <= 65535:
        raise UsageError(f"port is {options.port}; it must be between 1 and 65535")
    from avplatform.demo.app import build, import_gradio, serve_until_stopped, start

    import_gradio()  # before the models are opened, which may take long
    from avplatform.base.machine import set_threads
    from avplatform.demo.models import Models
    from avplatform.features.weights import parse_weights
    from avplatform.timeline.options import PipelineConfig

    set_threads(options.threads)
    console = Console()
    models = Models(
        options.models,
        config=from_options(PipelineConfig, options),
        recipe=options.recipe,
        weights=parse_weights(options.weights),
    )
    page = build(models, queue=options.queue)
    address = start(page, host=options.host, port=options.port, max_megabytes=options.max_megabytes)
    console.note(f"the demo of {', '.join(models.names)} is at {address}; Ctrl-C ends it")
    if not _is_loopback(options.host):
        console.note("whoever reaches this address can use it; it has no password")
    serve_until_stopped(page)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
