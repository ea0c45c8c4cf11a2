"""Options and the summary of the parity cases; fixtures that the whole suite shares."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest.mock import patch

# As `import avplatform` does, before torch loads OpenMP: threads that spin while they wait make a
# busy machine slow. One thread for each process, as several tests and their processes run at once.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.parity.golden_case import DEFAULT_GOLDEN, Case
from tests.parity.registry import HANDLERS

PARITY = pytest.StashKey[dict]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", default=str(DEFAULT_GOLDEN), help="folder of golden cases for tests/parity"
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(config.getoption("--golden"))
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: no such folder")
    names = sorted(p.stem for p in folder.glob("*.json"))
    config.stash[PARITY] = {"folder": folder, "names": names}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_case" in metafunc.fixturenames:
        parity = metafunc.config.stash[PARITY]
        covered = [name for name in parity["names"] if name in HANDLERS]
        metafunc.parametrize(
            "golden_case", [Case(n, parity["folder"]) for n in covered], ids=covered
        )


@pytest.fixture(scope="session", autouse=True)
def facts_are_read():
    """Read the kept facts in this process, whatever was edited; a test of its own compares them."""
    with patch("avplatform.catalogue.kept.outdated", lambda: False):
        yield


@pytest.fixture(scope="session")
def tiny_teachers(tmp_path_factory):
    """Folders of a random CLIP ("clip") and CLAP ("clap") of the right classes at tiny widths."""
    from tests.features.tiny_teachers import save_clap, save_clip

    folder = tmp_path_factory.mktemp("teachers")
    return {"clip": str(save_clip(folder / "clip")), "clap": str(save_clap(folder / "clap"))}


@pytest.fixture
def handlers(one_thread):
    """Run these cases on one thread, as they were measured: some depend on the order of a sum."""
    return HANDLERS


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    case = getattr(item, "callspec", None) and item.callspec.params.get("golden_case")
    if case:
        outcome.get_result().golden_case = case.name


def pytest_terminal_summary(terminalreporter, exitstatus, config: pytest.Config) -> None:
    parity, outcomes = config.stash[PARITY], {}
    # From the reports, since these also come from the processes of pytest-xdist.
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        name = getattr(report, "golden_case", None)
        if name and (report.when == "call" or report.outcome != "passed"):
            outcomes[name] = report.outcome
    if not outcomes:
        return
    uncovered = [name for name in parity["names"] if name not in HANDLERS]
    skipped = [name for name, outcome in outcomes.items() if outcome == "skipped"]
    write = terminalreporter.write_line
    if skipped:
        write(f"skipped: {', '.join(skipped)}")
    if uncovered:
        write(f"not covered: {', '.join(uncovered)}")
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    failed = sum(outcome == "failed" for outcome in outcomes.values())
    write(f"parity: {passed} passed, {failed} failed, {len(uncovered) + len(skipped)} not covered")


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread: fastest for small models, and no test depends on an earlier one's setting."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_network(tmp_path_factory):
    """Nothing may reach a hub, and nothing may land in the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("HF_DATASETS_OFFLINE", "1")
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    patch.setenv("AVPLATFORM_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def small_stores(tmp_path_factory) -> dict[str, Path]:
    """Small synthetic stores of both tasks, with all splits."""
    from avplatform.data.simulate.demo import make_demo

    folder = tmp_path_factory.mktemp("stores")
    for task in ("avel", "avvp"):
        make_demo(task, folder / task, sizes={"train": 24, "validation": 9, "test": 10})
    return {task: folder / task for task in ("avel", "avvp")}
