"""A dataset on (a stand-in for) the Hub: pushed whole, mapped or streamed over HTTP.

No more is requested than is read.
"""

import json
import re

import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.importing.report import without_places
from avplatform.data.reading.source import train_loader
from avplatform.models.errors import DataError
from tests.data.stores import spec_of, write
from tests.hub.fake_hub import FakeHub, FakeRepo
from tests.hub.test_hub import client, command, done

SIZES = {"train": 120, "validation": 20, "test": 30}
TRAIN = {f"train-{i:05d}.parquet" for i in range(3)}
READS = {
    "streamed": dict(streaming=True),
    "threads": dict(streaming=True, num_workers=2, processes=2, start=3),
    "resumed": dict(streaming=True, start=7),
    "mapped": dict(streaming=False),
    "again": dict(streaming=False),
}
READ = """
import json, os, urllib.error, urllib.request
from avplatform.data import open_data, stream_dataset
from tests.hub.test_data import READS, read
found = {}
def mark(name):
    try:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mark/" + name)
    except urllib.error.HTTPError:
        pass
for name, options in READS.items():
    mark(name)
    found[name] = read("tester/clips", cache_dir="cache", **options)
mark("own")
data = open_data("tester/clips", task="avvp", cache_dir="cache")
parts = [stream_dataset(data, process_index=i, num_processes=2) for i in range(2)]
found["own"] = [row for part in parts for table in part.iter(batch_size=8) \
for row in table["row"].to_pylist()]
print(json.dumps(found))
"""


def read(name, *, streaming, num_workers=0, processes=1, start=0, cache_dir=None):
    """Read the rest of an epoch as each process in turn; return what was read."""
    data, out = open_data(name, task="avvp", cache_dir=cache_dir), []
    for index in range(processes):
        loader = train_loader(
            data, ["train"], streaming=streaming, num_workers=num_workers, batch_size=16, seed=4,
            process_index=index, num_processes=processes,
        )  # fmt: skip
        batches = [share.batch for share in loader.epoch(2, start=start)]
        out.append(
            [
                [b.row.tolist(), b.visual.sum().item(), b.labels["weak"].sum().item(), b.clip_id]
                for b in batches
            ]
        )
    return out


@pytest.fixture(scope="module")
def hub():
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory):
    """A store of uneven shards with several row groups each, here and on the stand-in."""
    folder = tmp_path_factory.mktemp("pushed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avplatform.data.store.writer.GROUP_BYTES", 10 * 90)  # a clip has 90 bytes
        write(folder / "store", spec_of(), SIZES, rows_per_shard=50)
    open_data(folder / "store", task="avvp").split("test")  # leaves mapped arrays in the folder
    done(client(hub, folder, command("data", "push", folder / "store", "tester/clips")))
    return folder / "store"


@pytest.fixture(scope="module")
def reads(hub, pushed, tmp_path_factory):
    """What a client without a token reads in every way, and the shards and ranges it requests."""
    hub.requests.clear()
    home = tmp_path_factory.mktemp("client")
    found = json.loads(done(client(hub, home, READ, token=None)).splitlines()[-1])
    asked, current = {}, []
    for method, path, part in hub.requests:
        if path.startswith("/mark/"):
            current = asked.setdefault(path.removeprefix("/mark/"), [])
        elif method == "GET" and (match := re.search(r"/resolve/[^/]+/(.+\.parquet)$", path)):
            current.append((match[1], part))
    return found, asked, home


def test_manifest_shards_and_card_are_pushed_and_nothing_else(hub, pushed):
    files = hub.repos["datasets/tester/clips"].files()
    manifest = json.loads(files["dataset.json"])
    shards = {shard["file"] for split in manifest["splits"].values() for shard in split["shards"]}
    assert set(files) == {"dataset.json", "README.md"} | shards and len(shards) == 5
    assert all(files[name] == (pushed / name).read_bytes() for name in shards)
    assert b"tester/clips" in files["README.md"]


def test_a_pushed_import_report_names_no_place_of_this_machine():
    report = {
        "source": "/home/me/llp",
        "options": {"vggish": "/disk/features/vggish", "dtype": "float16"},
        "left_out": [
            {"clip_id": "a", "file": "/home/me/llp/feats/res152/a.npy", "reason": "missing"},
            {"clip_id": "b", "file": "/disk/features/vggish/b.npy", "reason": "holds NaN"},
        ],
    }
    shown = json.loads(without_places(json.dumps(report)))
    assert [item["file"] for item in shown["left_out"]] == ["./feats/res152/a.npy", "vggish/b.npy"]
    assert shown["source"] == "." and shown["options"] == {"vggish": "vggish", "dtype": "float16"}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_from_the_hub_is_what_the_folder_holds(pushed, reads, name):
    assert reads[0][name] == read(pushed, **{**READS[name], "num_workers": 0})


def test_only_the_shards_of_the_split_are_asked_for(reads):
    found, asked, home = reads
    assert {name: {file for file, _ in asked[name]} for name in asked} == {
        **dict.fromkeys(("streamed", "threads", "resumed", "mapped", "own"), TRAIN),
        "again": set(),  # mapped arrays are there
    }
    assert all(
        part for name in ("streamed", "threads", "resumed") for _, part in asked[name]
    )  # never a whole shard
    assert {
        file.name for file in home.rglob("*.parquet")
    } == TRAIN  # of the mapped split; nothing else was stored


def test_a_stream_asks_for_each_row_group_once_and_resumed_for_less(reads):
    footers, groups = 3, 12
    assert len(reads[1]["streamed"]) == footers + groups
    assert footers < len(reads[1]["resumed"]) <= footers + 8


def test_a_stream_for_loops_of_ones_own_reads_from_the_hub(reads):
    assert sorted(reads[0]["own"]) == list(range(120))


def test_a_shard_that_is_not_the_manifests_is_named_before_it_is_read(hub, pushed, tmp_path):
    name, files = "train-00001.parquet", hub.repos["datasets/tester/clips"].files()
    changed = bytes([*files[name][:100], files[name][100] ^ 255, *files[name][101:]])
    hub.add_large(changed)
    damaged = {"missing": None, "shorter": files[name][:-9], "other": changed}
    for kind, content in damaged.items():
        repo = hub.repos[f"datasets/tester/{kind}"] = FakeRepo(f"tester/{kind}")
        rest = {path: data for path, data in files.items() if path != name}
        repo.commit("main", rest if content is None else {**rest, name: content})
    text = (
        "from avplatform.models.errors import DataError\nfrom tests.hub.test_data import read\n"
        f"for kind in {list(damaged)}:\n"
        "    try:\n        read('tester/' + kind, streaming=True, cache_dir='cache')\n"
        "    except DataError as error:\n        print(error)\n"
    )
    lines = [
        line
        for line in done(client(hub, tmp_path, text)).splitlines()
        if line.startswith("tester/")
    ]
    assert [line.split(";")[0].split(".parquet ")[0] for line in lines] == [
        f"tester/{k}/train-00001" for k in damaged
    ]
    for line, wanted in zip(
        lines, ("is missing on the Hub", "bytes, in the manifest", "sha256 differs"), strict=True
    ):
        assert wanted in line


def test_private_is_refused_for_a_dataset_that_is_public(hub, pushed, tmp_path):
    failed = client(hub, tmp_path, command("data", "push", pushed, "tester/clips", "--private"))
    assert failed.returncode == 2 and "exists and is public" in failed.stderr


def test_a_damaged_store_is_not_pushed(tmp_path, capsys):
    write(tmp_path / "store", spec_of(), {"train": 5})
    file = tmp_path / "store" / "train-00000.parquet"
    file.write_bytes(
        bytes([*file.read_bytes()[:100], file.read_bytes()[100] ^ 255, *file.read_bytes()[101:]])
    )
    assert main(["data", "push", str(tmp_path / "store"), "tester/x"]) == 1
    assert "sha256 differs" in capsys.readouterr().err
    assert main(["data", "push", str(tmp_path), "tester/x"]) == 1
    assert "has no dataset.json" in capsys.readouterr().err


def test_a_source_that_fails_in_mid_stream_names_the_shard(pushed, monkeypatch):
    loader = train_loader(
        open_data(pushed, task="avvp"), ["train"], streaming=True, batch_size=16, seed=4
    )
    stream = loader.epoch(1)
    next(stream)

    def gone(shard, start, size):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(loader.shards, "read", gone)
    with pytest.raises(DataError, match=r"train-0000\d.parquet cannot be read .reset by peer."):
        list(stream)


def test_a_second_push_leaves_no_shard_of_the_first(hub, tmp_path):
    for name, sizes in (("first", SIZES), ("second", {"train": 30, "test": 10})):
        write(tmp_path / name, spec_of(), sizes, rows_per_shard=50)
        done(client(hub, tmp_path, command("data", "push", tmp_path / name, "tester/twice")))
        if name == "first":  # files that others added stay
            repo = hub.repos["datasets/tester/twice"]
            repo.commit("main", {**repo.files(), "notes.md": b"x", "extra/a-00000.parquet": b"x"})
    assert set(repo.files()) == {
        "dataset.json", "README.md", "train-00000.parquet", "test-00000.parquet",
        "notes.md", "extra/a-00000.parquet",
    }  # fmt: skip


def test_shards_in_the_cache_are_read_without_a_network(hub, pushed, tmp_path):
    read_it = (
        "import json; from tests.hub.test_data import read\n"
        "print(json.dumps(read('tester/clips', streaming=True)))"
    )
    online = done(client(hub, tmp_path, read_it)).splitlines()[-1]
    off = {"HF_HUB_OFFLINE": "1"}
    fast = command("data", "verify", "tester/clips", "--fast")
    # Only the small files are cached: nothing can be said of the shards, and nothing is.
    unknown = client(hub, tmp_path, fast, **off)
    assert unknown.returncode == 1 and "cannot be listed: HF_HUB_OFFLINE is set" in unknown.stderr
    assert "damaged" not in unknown.stdout + unknown.stderr
    done(client(hub, tmp_path, command("data", "verify", "tester/clips")))
    assert "sizes and footers are right" in done(client(hub, tmp_path, fast, **off))
    assert done(client(hub, tmp_path, read_it, **off)).splitlines()[-1] == online
