"""Failing networks: the push goes on where that helps, else it ends in one clear sentence."""

import pytest

from tests.hub.fake_hub import Failure, FakeRepo
from tests.hub.test_hub import WHOLE, client, command, done


def failed(process):
    """Return the one sentence with which a command failed."""
    assert process.returncode == 1, (process.stdout, process.stderr[-2000:])
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in process.stderr
    return line


@pytest.mark.parametrize(
    "failure",
    [
        Failure("POST", "/api/repos/create", 429, headers={"Retry-After": "1"}),
        Failure("POST", "/commit/main", 503),
        Failure("PUT", "/lfs/"),
        Failure("POST", "/commit/main"),
    ],
    ids=["rate limit", "server", "drop while weights are sent", "drop while the commit is sent"],
)
def test_a_push_goes_on_after_a_failure_that_passes(hub, run, tmp_path, failure):
    hub.failures.append(failure)
    told = done(client(hub, tmp_path, command("push", run, "tester/x")))
    repo = hub.repos["models/tester/x"]
    assert not hub.failures and set(repo.files()) == WHOLE and len(repo.commits) == 2
    assert f"pushed to {hub.url}/tester/x" in told
    if "/commit" in failure.path or "/api" in failure.path:  # the client itself repeats the others
        assert "trying again in 1 s" in told


def test_a_rate_limit_that_is_too_long_ends_the_push_at_once(hub, run, tmp_path):
    hub.failures.append(Failure("POST", "/commit/", 429, headers={"Retry-After": "900"}))
    line = failed(client(hub, tmp_path, command("push", run, "tester/x")))
    assert "too many requests (429); try again after 900 s" in line
    repo = hub.repos["models/tester/x"]
    assert repo.files() == {} and len(hub.large) == 1  # weights are there, no commit shows them
    done(client(hub, tmp_path, command("push", run, "tester/x")))
    assert set(repo.files()) == WHOLE
    assert sum(path.startswith("/lfs/") for method, path, _ in hub.requests if method == "PUT") == 1


def test_a_failure_that_does_not_pass_is_one_sentence(hub, run, tmp_path):
    hub.failures.append(Failure("POST", "/commit/", 502, times=99))
    line = failed(client(hub, tmp_path, command("push", run, "tester/x")))
    assert "the Hub did not take tester/x: it answered 502" in line
    assert sum("/commit/" in path for _, path, _ in hub.requests) == 4
    assert hub.repos["models/tester/x"].files() == {}


def test_missing_rights_and_gates_are_not_tried_again(hub, run, tmp_path):
    hub.failures.append(Failure("POST", "/api/repos/create", 403))
    line = failed(client(hub, tmp_path, command("push", run, "tester/x")))
    assert "the token has no right to do this (403)" in line
    assert sum(path == "/api/repos/create" for _, path, _ in hub.requests) == 1
    hub.repos["models/owner/gated"] = FakeRepo("owner/gated", gated=True)
    hub.repos["models/owner/gated"].commit("main", {"config.json": b"{}", "README.md": b""})
    line = failed(client(hub, tmp_path, command("info", "owner/gated")))
    assert "the repository is gated; ask for access on its page" in line


def test_without_a_token_or_a_network_nothing_is_tried_twice(hub, run, tmp_path):
    line = failed(client(hub, tmp_path, command("push", run, "tester/x"), token=None))
    assert "log in with `hf auth login`" in line and "models/tester/x" not in hub.repos
    line = failed(client(hub, tmp_path, command("push", run, "tester/x"), HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set; unset it" in line


def test_a_hub_that_cannot_be_reached_is_said_after_a_few_attempts(hub, run, tmp_path):
    hub.close()
    process = client(hub, tmp_path, command("push", run, "tester/x"))
    assert "it could not be reached" in failed(process)
    assert process.stdout.count("trying again in") == 3


def test_what_is_there_already_is_not_pushed_again(hub, run, tmp_path):
    done(client(hub, tmp_path, command("push", run, "tester/x")))
    again = done(client(hub, tmp_path, command("push", run, "tester/x")))
    assert "has all of it already; nothing was pushed" in again
    assert len(hub.repos["models/tester/x"].commits) == 2


def test_results_alone_are_pushed_without_weights(hub, run, tmp_path):
    done(client(hub, tmp_path, command("push", run, "tester/x", "--results-only")))
    files = hub.repos["models/tester/x"].files()
    assert set(files) == {"README.md", "config.json", "results.json"} and not hub.large
    assert (
        b'"accuracy": 59.876' in files["results.json"] and b"train.py" not in files["results.json"]
    )
    (run / "results.json").unlink()
    line = failed(
        client(hub, tmp_path, command("push", run / "model", "tester/y", "--results-only"))
    )
    assert "has no results.json" in line
