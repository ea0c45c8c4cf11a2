"""`--weights auto` fetches what is missing, checks it, and says all that is missing at once.

The server is a double on the loopback address: it shows whole and cut files, wrong content and
missing pages, but no redirects, certificates or rate limits.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from avplatform.cli import main
from avplatform.features import fetch, weights
from avplatform.features.extractor import Extractor
from avplatform.features.fetch import ensure_weights, missing_weights
from avplatform.features.image_networks import hub_repository
from avplatform.features.recipe import FeatureRecipe, get_recipe
from avplatform.features.weights import PUBLISHED, parse_weights
from avplatform.models.errors import DataError
from tests.features.clips import standard
from tests.features.networks import SMALL, timm_file, vggish_file
from tests.forked import run_forked
from tests.hub.fake_hub import FakeHub, FakeRepo, environment


class Server:
    """Serves `files` by name; of those in `cut` it sends the first half and closes."""

    def __init__(self):
        self.files, self.cut, self.asked = {}, set(), []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                server.asked.append(self.path[1:])
                self.answer(body=True)

            def answer(self, body):
                content = server.files.get(self.path[1:])
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    half = len(content) // 2 if self.path[1:] in server.cut else len(content)
                    self.wfile.write(content[:half])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server from which VGGish and R(2+1)D come, and an empty folder of weights."""
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    server = Server()
    content = vggish_file(tmp_path / "source.pth").read_bytes()
    server.files = {"vggish": content, "r2plus1d_18": b"motion" * 1000}
    for name, known in (("vggish", False), ("r2plus1d_18", True)):
        digest = hashlib.sha256(server.files[name]).hexdigest()[:8] if known else None
        entry = replace(PUBLISHED[name], url=f"{server.url}/{name}", package="", sha256=digest)
        monkeypatch.setitem(PUBLISHED, name, entry)
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path / "weights"))
    yield server
    server.http.shutdown()


def given(tmp_path, **more):
    return {"visual": str(timm_file(tmp_path / "test_resnet.safetensors")), "auto": "auto", **more}


def test_a_missing_file_is_fetched_and_used(server, tmp_path):
    said = []
    ensure_weights(SMALL, given(tmp_path), note=said.append)
    assert server.asked == ["vggish"]
    digest = hashlib.sha256(server.files["vggish"]).hexdigest()
    assert len(said) == 1 and "no checksum of it is known here" in said[0] and digest in said[0]
    lock = json.loads((tmp_path / "weights" / "weights.lock.json").read_text())
    assert lock["vggish-10086976.pth"]["sha256"] == digest
    assert Extractor(SMALL, given(tmp_path)).audio.width == 8
    assert server.asked == ["vggish"]  # it is there now
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [
        "vggish-10086976.pth", "weights.lock.json"
    ]  # fmt: skip


def test_the_command_fetches_and_extracts(server, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    standard(tmp_path / "videos" / "a.mp4", seconds=2)
    visual = timm_file(tmp_path / "test_resnet.safetensors")
    recipe = ["--backbones", "lite", "--audio", "vggish", "--visual", "timm:test_resnet", "--cpu"]
    command = ["extract", str(tmp_path / "videos"), "--out", str(tmp_path / "store"), *recipe]
    assert main([*command, "--weights", f"visual={visual}"]) == 1
    error = capsys.readouterr().err
    assert "vggish: vggish-10086976.pth, from" in error and "--weights auto fetches them" in error
    assert main([*command, "--weights", f"visual={visual}", "auto"]) == 0
    assert "kept in" in capsys.readouterr().out and server.asked == ["vggish"]


def test_a_later_download_must_be_the_first_one(server, tmp_path):
    ensure_weights(SMALL, given(tmp_path))
    (tmp_path / "weights" / "vggish-10086976.pth").unlink()
    server.files["vggish"] += b"x"
    with pytest.raises(DataError, match="invalid hash value"):
        ensure_weights(SMALL, given(tmp_path))
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["weights.lock.json"]


def test_a_wrong_checksum_is_refused_and_nothing_stays(server, tmp_path):
    server.files["r2plus1d_18"] = b"another" * 1000
    with pytest.raises(DataError, match="those of 1 could not be fetched") as caught:
        ensure_weights(replace(SMALL, motion="r2plus1d_18"), given(tmp_path))
    assert "r2plus1d_18-91a641e6.pth" in str(caught.value)
    assert "invalid hash value" in str(caught.value)
    names = {path.name for path in (tmp_path / "weights").iterdir()}
    assert names == {"vggish-10086976.pth", "weights.lock.json"}  # the other one was fetched


@pytest.mark.parametrize("name", ["vggish", "r2plus1d_18"])
def test_a_download_that_is_cut_off_is_refused(name, server, tmp_path):
    server.cut.add(name)
    with pytest.raises(DataError, match=r"ended after .* of .* bytes|invalid hash value"):
        ensure_weights(replace(SMALL, motion="r2plus1d_18"), given(tmp_path))
    assert not (tmp_path / "weights" / PUBLISHED[name].files[0]).exists()
    server.cut.clear()
    ensure_weights(replace(SMALL, motion="r2plus1d_18"), given(tmp_path))
    assert (tmp_path / "weights" / PUBLISHED[name].files[0]).is_file()


def test_all_that_cannot_be_fetched_is_in_one_message(server, tmp_path):
    server.files.clear()
    with pytest.raises(DataError) as caught:
        ensure_weights(replace(SMALL, motion="r2plus1d_18"), given(tmp_path))
    said = str(caught.value)
    assert said.count("404") == 2 and f"put files into {tmp_path / 'weights'}" in said
    assert all(f"{server.url}/{name}" in said for name in ("vggish", "r2plus1d_18"))


def test_a_server_that_is_not_there_is_said(server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DataError, match=r"cannot be fetched \(.*refused"):
        ensure_weights(SMALL, given(tmp_path))


def test_all_that_is_missing_is_listed_with_commands_before_anything_is_loaded(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(DataError, match="weights of 3 networks are missing") as caught:
        Extractor("llp")
    said = str(caught.value)
    assert PUBLISHED["vggish"].url in said and PUBLISHED["r2plus1d_18"].url in said
    name = get_recipe("llp").visual.removeprefix("timm:")
    assert f"`hf download {hub_repository(name)} --include 'model.safetensors'`" in said
    assert "--weights auto fetches them" in said


def test_offline_nothing_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, so nothing is fetched"):
        ensure_weights(SMALL, given(tmp_path))
    assert server.asked == []


FROM_HUB = """
import sys
from avplatform.features.extractor import Extractor
from avplatform.features.fetch import ensure_weights
from avplatform.features.recipe import FeatureRecipe
from avplatform.models.errors import DataError
recipe = FeatureRecipe(name="x", audio="vggish", visual="timm:test_resnet")
weights = {"vggish": sys.argv[1], "auto": "auto"}
try:
    ensure_weights(recipe, weights, note=print)
    print(Extractor(recipe, {"vggish": sys.argv[1]}).describe()["weights"]["visual"])
except DataError as error:
    print("refused:", error)
"""


def test_models_of_the_hub_are_fetched_and_keep_their_commit(tmp_path):
    hub, repository = FakeHub(), hub_repository("test_resnet")
    model = timm_file(tmp_path / "model.safetensors").read_bytes()
    audio = vggish_file(tmp_path / "vggish.pth")
    repo = hub.repos[f"models/{repository}"] = FakeRepo(repository)
    hub.add_large(model)
    first = repo.commit("main", {"model.safetensors": model})

    def run(home, **more):
        env = environment(hub, tmp_path / home, token=None)
        env |= {"AVPLATFORM_WEIGHTS": str(tmp_path / "weights"), **more}
        return run_forked(FROM_HUB, str(audio), env=env, cwd=tmp_path, timeout=600)

    try:
        offline = run("one", HF_HUB_OFFLINE="1").stdout
        assert f"hf download {repository}" in offline and "HF_HUB_OFFLINE is set" in offline
        done = run("one")
        assert "is kept in" in done.stdout and repository in done.stdout, done
        lock = json.loads((tmp_path / "weights" / "weights.lock.json").read_text())
        digest = hashlib.sha256(model).hexdigest()
        assert lock[repository] == {"sha256": digest, "revision": first}
        repo.commit("main", {"model.safetensors": b"another"})
        again = run("two")  # an empty cache: the same commit is fetched, whatever main is now
        assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1], again
    finally:
        hub.close()


def test_auto_is_a_value_of_weights():
    assert parse_weights(["auto", "visual=x"]) == {"auto": "auto", "visual": "x"}


def test_only_checksums_that_are_published_are_stated():
    """A name with a checksum in it agrees with the one that is stated."""
    for published in weights.PUBLISHED.values():
        known = published.sha256
        assert known is None or len(known) == 64 or f"-{known}." in published.files[0]
        if published.package:
            assert known is not None and not published.url
            continue
        assert published.url.startswith("https://") and published.url.endswith(published.files[0])


def test_nothing_is_missing_where_all_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", str(tmp_path / "empty"))
    recipe = FeatureRecipe(name="x", audio="clap", visual="clip")
    assert missing_weights(recipe, {"clip": tmp_path, "clap": tmp_path}) == []
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    found = missing_weights(recipe, {})
    assert [one.repository.split("/")[0] for one in found] == ["laion", "openai"]
    assert all(len(one.revision) == 40 for one in found) and fetch.TIMEOUT > 0
