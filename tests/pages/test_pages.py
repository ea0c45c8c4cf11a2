"""Every code block of README.md, CONTRIBUTING.md, SECURITY.md and docs/ is run, or named."""

from __future__ import annotations

import re

import pytest
import tyro

from avplatform.cli import main
from avplatform.features import backbones
from avplatform.training_free import model as training_free
from tests.pages.blocks import PAGES, ROOT, arguments, assignment, blocks_in, blocks_of, commands_of
from tests.pages.pages import ELSEWHERE, NOT_RUN, RUN, SHORTER
from tests.training_free.planted import PlantedCLAP, PlantedCLIP

CODE = ("bash", "python")
"""Languages that are run. A yaml block is a file, named by its first line; the others are data."""


def reason(command: str) -> str | None:
    """Return why a command is not run, or None if it is run."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), None)


class Parsed(Exception):
    """Options were read; the command goes no further."""


@pytest.fixture
def here(tmp_path, monkeypatch, places):
    """An empty folder, demo data of a few clips, and teachers that need no weights."""
    monkeypatch.setenv("AVPLATFORM_CACHE", str(places["cache"]))
    for name, kind in (("CLIPTeacher", PlantedCLIP), ("CLAPTeacher", PlantedCLAP)):
        monkeypatch.setattr(backbones, name, kind)
    monkeypatch.setattr(training_free, "KINDS", {"clip": PlantedCLIP, "clap": PlantedCLAP})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(args: list[str]) -> int | str | None:
    """Return the exit code of a command of the command line."""
    try:
        return main(args)
    except SystemExit as ended:  # --help
        return ended.code or 0


def run_page(page: str, here, places) -> int:
    """Run the blocks of a page in order; return how many commands and Python blocks were run."""
    spec, ran = RUN[page], 0
    for target, name in spec.places.items():
        places.put(name, here / target)
    names: dict[str, object] = dict(spec.names() if spec.names else {})
    shell: dict[str, str] = {}
    for block in blocks_of(page):
        where = f"{page}:{block.line}"
        if block.language == "yaml":
            file = block.text.splitlines()[0].removeprefix("# ")
            (here / file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = block.text
            for long, short in spec.instead.items():
                code = code.replace(long, short)
            exec(compile(code, where, "exec"), names)
            ran += 1
        elif block.language == "bash":
            for command in commands_of(block.text):
                if (variable := assignment(command)) is not None:
                    shell[variable[0]] = variable[1]
                    continue
                if reason(command) is not None:
                    continue
                for name, value in shell.items():
                    command = command.replace(f"'${name}'", value)
                args = arguments(command)
                assert args is not None, f"{where}: no test runs `{command}`; say why in NOT_RUN"
                kind = " ".join(args[: 2 if args[0] in ("data", "pseudo-label") else 1])
                more = spec.shorter.get(kind, SHORTER.get(kind, ""))
                code = run([*args, *more.split()])
                assert code == spec.codes.get(" ".join(args), 0), f"{where}: `{command}`: {code}"
                ran += 1
    return ran


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.slow] if spec.slow else []) for p, spec in RUN.items()],
)
def test_the_blocks_of_a_page_run_in_order(page, here, places):
    assert run_page(page, here, places)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_named(page):
    """The blocks of a page in RUN are run; whether that finds a way to run them is seen here."""
    if page in ELSEWHERE:
        assert page.split("/")[-1] in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
        return
    assert lost(blocks_of(page), run=page in RUN) == []


def lost(blocks, *, run):
    """Return what is neither run nor named."""
    found = [f"{b.page}:{b.line}" for b in blocks if b.language == "python" and not run]
    for block in blocks:
        for command in commands_of(block.text) if block.language == "bash" else []:
            started = arguments(command) is not None or assignment(command) is not None
            if not (run and started) and reason(command) is None:
                found.append(f"{block.page}:{block.line}: {command}")
    return found


def test_a_block_that_nothing_runs_is_found():
    text = (
        "# A\n\n```bash\npip install x && avplatform list  # all\n```\n\n```python\nimport x\n```\n"
    )
    blocks = blocks_in(text, "new.md")
    assert lost(blocks, run=False) == ["new.md:7", "new.md:3: avplatform list"]
    assert lost(blocks, run=True) == []
    (other,) = blocks_in("```bash\nmake it\n```", "new.md")
    assert lost([other], run=True) == ["new.md:1: make it"]


def unrun():
    found = {}
    for page in PAGES:
        for block in blocks_of(page) if page not in ELSEWHERE else []:
            for command in commands_of(block.text) if block.language == "bash" else []:
                args = arguments(command)
                if args is None or "--job" in args:  # tests/hub/test_jobs.py reads these flags
                    continue
                if reason(command) is not None:
                    found[command] = args
    return found


@pytest.mark.parametrize("command", unrun())
def test_the_options_of_a_command_that_is_not_run_are_read(command, monkeypatch, capsys):
    read = tyro.cli

    def stop(*args, **more):
        read(*args, **more)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", stop)
    with pytest.raises(Parsed):
        main(unrun()[command])
    with pytest.raises(SystemExit, match="2"):
        main([*unrun()[command], "--no-such-option", "3"])
    capsys.readouterr()


def test_every_reason_is_of_a_command_of_a_page():
    commands = [
        command
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "bash"
        for command in commands_of(block.text)
    ]
    used = {next(p for p in NOT_RUN if re.match(p, c)) for c in commands if reason(c) is not None}
    assert used == set(NOT_RUN) and set(RUN) | set(ELSEWHERE) <= set(PAGES)
