"""`avplatform doctor` says what is there, what is missing, and the command that mends it."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import huggingface_hub
import pytest

from avplatform.base import packages
from avplatform.cli import main
from avplatform.commands import doctor_checks
from avplatform.commands.doctor_checks import (
    BROKEN,
    MISSING,
    OK,
    WARNING,
    Line,
    examine,
    folder_size,
    without_password,
)
from avplatform.data.simulate.demo import demo_folder
from avplatform.data.store.schema import MANIFEST_FILE
from avplatform.features.weights import PUBLISHED
from avplatform.version import __version__
from tests.hub.fake_hub import TOKEN, FakeHub
from tests.posix import needs_posix

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hf_verysecret"


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """All lines on this machine, with empty caches and a token; nothing may be connected to."""

    def refuse(*args):
        pytest.fail("a connection was opened")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(huggingface_hub, "get_token", lambda: SECRET)
        patch.setenv("AVPLATFORM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("AVPLATFORM_WEIGHTS", raising=False)
        return list(examine())


@pytest.fixture
def only(monkeypatch):
    """Let doctor examine one part only, for the tests that are about its output."""

    def choose(*lines: Line):
        monkeypatch.setattr("avplatform.commands.doctor.examine", lambda online: iter(lines))

    return choose


def line(status=OK, name="thing", **more):
    return Line(part="packages", name=name, status=status, **{"found": "1.0", **more})


def named(lines, name):
    (found,) = [one for one in lines if one.name == name]
    return found


def test_every_part_is_examined_without_a_connection(examined):
    assert list(dict.fromkeys(one.part for one in examined)) == [
        "versions",
        "packages",
        "machine",
        "media",
        "caches",
        "hub",
        "weights of feature extractors",
        "data",
    ]
    assert not [one for one in examined if one.status == BROKEN or one.name == one.part]
    assert named(examined, "avplatform").found.startswith(__version__)
    assert named(examined, "threads").found.endswith(("core", "cores"))


def test_whatever_is_missing_has_its_remedy(examined):
    missing = [one for one in examined if one.status == MISSING]
    assert missing and all(one.remedy for one in missing)
    assert named(missing, "lite").remedy.endswith("--backbones lite --weights auto")
    assert named(missing, "demo of avel").remedy == "avplatform train --task avel"


def test_every_requirement_has_a_line(examined):
    wanted = packages.requirements()
    assert set(wanted) >= {"", "media", "text", "demo", "score", "track", "dev"}
    names = {one.name for one in examined if one.part == "packages"}
    extras = {f"extra {extra}" for extra in wanted if extra}
    assert names == extras | {text.split(">")[0] for text in wanted[""]}


def test_a_token_is_never_shown(examined):
    assert named(examined, "token").status == OK
    assert SECRET not in repr(examined)
    url = "https://me:secret@mirror.example/hub"
    assert "secret" not in without_password(url) and "mirror.example/hub" in without_password(url)


def test_a_line_holds_status_name_what_was_found_and_the_remedy(only, capsys):
    only(line(), line(MISSING, "other", found="is not installed", remedy="pip install other"))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "packages:",
        "  ok       thing            1.0",
        "  missing  other            is not installed  -> pip install other",
        "",
        "everything that is always needed works",
    ]


@pytest.mark.parametrize(("status", "code"), [(OK, 0), (MISSING, 0), (WARNING, 0), (BROKEN, 1)])
def test_only_what_is_always_needed_fails_the_command(only, capsys, status, code):
    only(line(), line(status, "other"))
    assert main(["doctor"]) == code
    assert ("works: other" in capsys.readouterr().out) == bool(code)
    assert main(["doctor", "--json"]) == code
    content = json.loads(capsys.readouterr().out)
    assert content["ok"] == (not code)
    assert content["lines"][1] == {
        "part": "packages", "name": "other", "status": status, "found": "1.0", "remedy": ""
    }  # fmt: skip


def install(folder, name, code, version="1.0"):
    """Install a package of one module into a folder, as pip would leave it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    facts = folder / f"{module}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (facts / "top_level.txt").write_text(f"{module}\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Three planted packages, of which only the first can be imported."""
    install(tmp_path, "planted-whole", "print('hello')")
    install(tmp_path, "planted-torn", "raise ImportError('libav.so.9:\\n cannot open')")
    install(tmp_path, "planted-quitting", "import sys\nsys.exit('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    packages._modules.cache_clear()
    yield lambda **extras: monkeypatch.setattr(packages, "requirements", lambda: extras)
    packages._modules.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "status", "found", "remedy"),
    [
        ("planted-whole", OK, "planted-whole 1.0", ""),
        (
            "planted-torn",
            WARNING,
            "planted-torn 1.0 cannot be imported (ImportError: libav.so.9: cannot open)",
            'pip install --force-reinstall "planted-torn"',
        ),
        (
            "planted-quitting",
            WARNING,
            "planted-quitting 1.0 cannot be imported (SystemExit: no licence)",
            'pip install --force-reinstall "planted-quitting"',
        ),
        (
            "planted-absent>=2",
            MISSING,
            "planted-absent is not installed",
            'pip install "avplatform[demo]"',
        ),
        (
            "planted-whole>=2",
            WARNING,
            "planted-whole 1.0 is installed, but >=2 is needed",
            'pip install -U "planted-whole>=2"',
        ),
    ],
)
def test_an_extra_is_reported_in_one_line(installed, capsys, wanted, status, found, remedy):
    installed(**{"": ["planted-whole"], "demo": [wanted]})
    core, extra = doctor_checks.packages()
    assert (core.status, core.found) == (OK, "1.0")
    assert (extra.status, extra.found, extra.remedy) == (status, found, remedy)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("wanted", ["planted-torn", "planted-absent>=2", "planted-whole>=2"])
def test_a_package_that_is_always_needed_and_does_not_work_is_broken(installed, wanted):
    installed(**{"": [wanted]})
    (core,) = doctor_checks.packages()
    assert core.status == BROKEN and core.remedy.startswith("pip install")


def test_packages_are_imported_by_the_names_that_they_offer():
    assert packages._module("pyyaml") == "yaml"
    assert packages._module("huggingface_hub") == "huggingface_hub"


def test_the_requirements_of_an_installed_package_come_from_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    texts = ["torch>=2.9", 'av>=14.1; extra == "media"', 'scipy; extra == "dev"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: texts)
    assert packages.requirements() == {
        "": ["torch>=2.9"], "media": ["av>=14.1"], "dev": ["scipy"]
    }  # fmt: skip


def test_without_torch_and_the_reader_of_flags_the_report_is_whole(tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, tyro=None)\n"
        "from avplatform.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "AVPLATFORM_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    content = json.loads(done.stdout)
    broken = [one["name"] for one in content["lines"] if one["status"] == BROKEN]
    assert {"torch", "tyro", "machine"} <= set(broken)
    assert {one["part"] for one in content["lines"]} >= {"versions", "media", "hub", "data"}


def test_what_cannot_be_examined_is_one_line(monkeypatch):
    def fail():
        raise RuntimeError("a library\nof the system is missing")

    for part in ("media", "caches", "weights", "data", "packages", "machine"):
        monkeypatch.setattr(doctor_checks, part, fail)
    lines = {one.name: one for one in examine()}
    reason = "cannot be examined (RuntimeError: a library of the system is missing)"
    assert lines["media"].found == reason and lines["media"].status == WARNING
    assert lines["packages"].status == lines["machine"].status == BROKEN


def test_without_pyav_the_command_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (found,) = doctor_checks.media()
    assert (found.status, found.remedy) == (MISSING, 'pip install "avplatform[media]"')


def test_a_build_of_pyav_without_a_decoder_is_named(monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setitem(doctor_checks.DECODERS, "video", ("h264", "no-such-decoder"))
    found = named(list(doctor_checks.media()), "video decoders")
    assert found.status == WARNING and found.found.startswith("none for no-such-decoder")
    assert "install" in found.remedy


Usage = namedtuple("Usage", "total used free")


@needs_posix
def test_caches_are_shown_with_their_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_CACHE", str(tmp_path))
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "x.npy").write_bytes(bytes(3_400_000))
    (tmp_path / "again").symlink_to(tmp_path / "arrays" / "x.npy")
    assert folder_size(tmp_path) == 3_400_000
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(1, 1, 50 * 10**9))
    found = list(doctor_checks.caches())
    assert named(found, "own cache").found == f"3.4 MB in {tmp_path}, 50.0 GB free"
    assert named(found, "weights").found.startswith("nothing yet in ")


def test_a_cache_on_a_full_disk_or_that_cannot_be_made_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_CACHE", str(tmp_path))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path / "file" / "weights"))
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(1, 1, 1000))
    found = list(doctor_checks.caches())
    assert named(found, "own cache").status == named(found, "weights").status == WARNING
    assert "AVPLATFORM_CACHE=" in named(found, "own cache").remedy
    assert named(found, "weights").found.endswith(", not writable")


def test_weights_that_are_here_are_not_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path))
    for backbone in ("soundnet8", "vggish"):
        (tmp_path / PUBLISHED[backbone].files[0]).write_bytes(b"")
    lines = list(doctor_checks.weights())
    assert "vggish" not in named(lines, "llp").found and "r2plus1d_18" in named(lines, "llp").found
    assert named(lines, "lite").found == "not here: tf_efficientnet_lite0"
    (tmp_path / PUBLISHED["tf_efficientnet_lite0"].files[0]).write_bytes(b"")
    assert named(list(doctor_checks.weights()), "lite").status == OK


def test_demo_data_that_are_made_are_named_as_synthetic(tmp_path, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_CACHE", str(tmp_path))
    folder = demo_folder("avvp")
    folder.mkdir()
    (folder / MANIFEST_FILE).write_text("{}")
    lines = list(doctor_checks.data())
    assert named(lines, "demo of avvp").found == f"{folder} (synthetic)"
    assert named(lines, "demo of avel").status == MISSING


@pytest.fixture
def hub():
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture
def asked(monkeypatch):
    """Return a function that asks the Hub at an address, with a token, and returns the line."""

    def ask(url, token, *, online=True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
        lines = list(doctor_checks.hub(online=online))
        assert (named(lines, "token").status == OK) == bool(token)
        return named(lines, "endpoint")

    return ask


def test_the_hub_is_asked_only_with_online(hub, asked):
    assert asked(hub.url, TOKEN, online=False).found == f"{hub.url}: not asked; --online asks it"
    assert hub.requests == []
    assert asked(hub.url, TOKEN).found == f"{hub.url}: answers"
    assert asked(hub.url, None).found == f"{hub.url}: answers"
    refused = asked(hub.url, SECRET)
    assert refused.status == WARNING and "does not know the token" in refused.found
    assert SECRET not in refused.found


def test_a_hub_that_is_not_there_or_silent_is_one_clear_line(asked, monkeypatch):
    monkeypatch.setattr(doctor_checks, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        absent = asked(url, None)
        silent.listen()
        threading.Thread(target=silent.accept, daemon=True).start()
        mute = asked(url, None)
    for found in (absent, mute):
        assert found.status == WARNING and "could not be reached" in found.found
        assert "\n" not in found.found


def test_offline_mode_is_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lines = list(doctor_checks.hub(online=True))
    assert named(lines, "offline").remedy == "unset HF_HUB_OFFLINE"
    assert named(lines, "endpoint").found.endswith("HF_HUB_OFFLINE is set; unset it")
