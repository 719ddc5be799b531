"""Every writer on a full disk, a read-only one, without permission and without memory; and clocks that jump.

Each fails with one line that names the file and the remedy, leaves nothing behind, and succeeds once there is room.
"""

import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from collateral.data.download.fetch import fetch
from collateral.deltas.file_format import read_increment, write_increment
from collateral.deltas.increment import rebuild
from collateral.errors import CollateralError
from collateral.io.atomic import STALE, read_sealed_json, whole_file, write_json, write_text
from collateral.io.parquet import read_table, write_table
from collateral.io.resource_errors import shortage
from collateral.models.download import fetch_model
from collateral.models.tensor_file import read_tensors, write_tensors
from collateral.runtime import job_cache as kept
from collateral.runtime import run_lock
from smalldisk import mounted, remounted
from smallstudy import save_tiny

NOBODY = 65534
GENERATOR = torch.Generator().manual_seed(0)
BEFORE = torch.randn(300, 400, generator=GENERATOR)
AFTER = BEFORE + torch.randn(300, 400, generator=GENERATOR)
NOISE = np.random.default_rng(0).random(120_000)  # does not compress to under a megabyte
ABOUT = {"base_sha256": "a" * 64, "mode": "additive", "from_edits": 0, "to_edits": 1, "editor": {}}
FULL = r"the disk is full; free space on it and run the same command again"


def forked(act: Callable[[], None]) -> str:
    """Run in a process of its own; return the CollateralError that ended it, or nothing where none did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = ""
        try:
            act()
        except CollateralError as error:
            said = f"refused: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode()[:8000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert not said or said.startswith("refused: "), said
    return said.removeprefix("refused: ")


@pytest.fixture(scope="module")
def origins(tmp_path_factory) -> Path:
    """What is brought from elsewhere: a model's folder, a mirror; both may be read by everybody."""
    folder = tmp_path_factory.mktemp("origins")
    for above in (folder, *folder.parents[:3]):
        above.chmod(0o755)
    save_tiny(folder / "model")
    (folder / "mirror").mkdir()
    (folder / "mirror/facts.json").write_bytes(NOISE.tobytes())
    for path in folder.rglob("*"):
        path.chmod(0o755)
    return folder


def numbers() -> pl.DataFrame:
    return pl.DataFrame({"noise": NOISE})


def text(folder: Path, _: Path) -> Path:
    write_text(folder / "made/noise.txt", NOISE.tobytes().hex())
    return folder / "made/noise.txt"


def record(folder: Path, _: Path) -> Path:
    write_json(folder / "made/noise.json", {"noise": NOISE.tobytes().hex()})
    return folder / "made/noise.json"


def table(folder: Path, _: Path) -> Path:
    write_table(numbers(), folder / "made/noise.parquet")
    return folder / "made/noise.parquet"


def delta(folder: Path, _: Path) -> Path:
    write_increment(folder / "made/delta.parquet", {"w": BEFORE}, {"w": AFTER}, ABOUT)
    return folder / "made/delta.parquet"


def tensors(folder: Path, _: Path) -> Path:
    write_tensors({"w": torch.cat([AFTER, BEFORE])}, folder / "made/w.safetensors", {"is": "noise"})
    return folder / "made/w.safetensors"


def download(folder: Path, origins: Path) -> Path:
    source = {"file": "facts.json", "sha256": sha256(NOISE.tobytes()).hexdigest()}
    return fetch(source, folder / "made/facts.json", origins / "mirror")


WRITERS = {one.__name__: one for one in (text, record, table, delta, tensors, download)}


def check_read(name: str, path: Path) -> None:
    """Read what was written, with the reader that the workflow uses."""
    if name == "record":
        assert bytes.fromhex(read_sealed_json(path)["noise"]) == NOISE.tobytes()
    elif name == "table":
        assert read_table(path, "noise").equals(numbers())
    elif name == "delta":
        assert torch.equal(rebuild({"w": BEFORE}, [read_increment(path)])["w"], AFTER)
    elif name == "tensors":
        assert torch.equal(read_tensors(path, "noise")[0]["w"], torch.cat([AFTER, BEFORE]))
    else:
        raw = path.read_bytes()
        assert (bytes.fromhex(raw.decode()) if name == "text" else raw) == NOISE.tobytes()


def left_behind(folder: Path) -> list[Path]:
    """Files but locks, which stay by design."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(CollateralError) as caught:
        act()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_a_writer_says_so_and_leaves_nothing(name, tmp_path, origins):
    with mounted(tmp_path / "disk", "size=400k") as disk:
        said = refusal(lambda: WRITERS[name](disk, origins))
        assert str(disk / "made") in said
        assert FULL in said
        assert left_behind(disk) == []
        remounted(disk, "size=8m")
        check_read(name, WRITERS[name](disk, origins))


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_file_that_was_there(name, tmp_path, origins):
    with mounted(tmp_path / "disk", "size=8m") as disk:
        path = WRITERS[name](disk, origins)
        if name == "download":
            path.write_bytes(b"what an earlier study had")
        before = path.read_bytes()
        (disk / "filler").write_bytes(
            bytes(8 * 2**20 - 64 * 2**10 - sum(p.stat().st_blocks * 512 for p in disk.rglob("*")))
        )
        assert FULL in refusal(lambda: WRITERS[name](disk, origins))
        assert path.read_bytes() == before
        (disk / "filler").unlink()
        check_read(name, WRITERS[name](disk, origins))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_over_the_limit_of_the_process_is_refused_as_on_a_full_disk(name, tmp_path, origins):
    """Runs without root, too: `ulimit -f`."""

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        WRITERS[name](tmp_path, origins)

    said = forked(act)
    assert "`ulimit -f`" in said
    assert str(tmp_path / "made") in said
    assert left_behind(tmp_path) == []
    check_read(name, WRITERS[name](tmp_path, origins))


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk_is_named(name, tmp_path, origins):
    with mounted(tmp_path / "disk", "size=8m") as disk:
        remounted(disk, "ro")
        said = refusal(lambda: WRITERS[name](disk, origins))
        assert str(disk) in said
        assert "the file system is read-only; work in a folder that can be written" in said
        remounted(disk, "rw")
        check_read(name, WRITERS[name](disk, origins))


def as_nobody(act: Callable[[], object]) -> Callable[[], None]:
    def there() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        act()

    return there


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_permission_is_named(name, tmp_path, origins):
    if os.geteuid() != 0:
        pytest.skip("to become somebody without permission takes root")
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755)
    said = forked(as_nobody(lambda: WRITERS[name](tmp_path, origins)))
    assert str(tmp_path) in said
    assert "permission denied; give yourself the right to read and write there" in said
    assert left_behind(tmp_path) == []
    check_read(name, WRITERS[name](tmp_path, origins))


@pytest.mark.parametrize("name", ["record", "table", "delta", "tensors"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(name, tmp_path, origins):
    """Whoever deleted it as damaged would lose sound work."""
    if os.geteuid() != 0:
        pytest.skip("to become somebody without permission takes root")
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755)
    path = WRITERS[name](tmp_path, origins)
    path.chmod(0o600)
    said = forked(as_nobody(lambda: check_read(name, path)))
    assert "permission denied" in said.lower(), said
    assert "delete" not in said


def test_a_models_folder_on_a_full_or_read_only_disk(tmp_path, origins):
    source = {"folder": str(origins / "model")}
    with mounted(tmp_path / "disk", "size=4k") as disk:
        (disk / "model").mkdir()
        (disk / "filler").write_bytes(bytes(4096))
        said = refusal(lambda: fetch_model(source, disk / "model"))
        assert FULL in said
        assert not (disk / "model/manifest.json").exists()
        remounted(disk, "size=1m")
        remounted(disk, "ro")
        assert "read-only" in refusal(lambda: fetch_model(source, disk / "model"))
        remounted(disk, "rw")
        fetch_model(source, disk / "model")
        assert (disk / "model/model.safetensors").resolve() == (origins / "model/model.safetensors").resolve()
        assert read_sealed_json(disk / "model/manifest.json")["files"]


def test_work_that_cannot_be_kept_aside_is_not_lost_and_leaves_no_torn_copy(tmp_path):
    """Where links cannot be made, as between two disks, the copy may fill the disk."""
    output = tmp_path / "delta.parquet"
    output.write_bytes(NOISE.tobytes())
    own = kept.make_claim("edit", [], [output], {})
    with mounted(tmp_path / "disk", "size=256k") as disk:
        kept.keep(own, disk / "kept")
        assert left_behind(disk) == []
        assert list((disk / "kept").iterdir()) == []
        assert not kept.take_back(own, disk / "kept")
        remounted(disk, "size=4m")
        kept.keep(own, disk / "kept")
        output.unlink()
        assert kept.take_back(own, disk / "kept")
        assert output.read_bytes() == NOISE.tobytes()


def test_work_that_cannot_be_taken_back_for_want_of_room_is_one_line(tmp_path):
    with mounted(tmp_path / "disk", "size=256k") as disk:
        own = kept.make_claim("edit", [], [disk / "delta.parquet"], {})
        place = tmp_path / "kept" / own.key
        place.mkdir(parents=True)
        (place / "0").write_bytes(NOISE.tobytes())
        about = {"outputs": list(own.outputs), "sha256": [sha256(NOISE.tobytes()).hexdigest()]}
        (place / "about.json").write_text(json.dumps(about))
        assert FULL in refusal(lambda: kept.take_back(own, tmp_path / "kept"))
        assert left_behind(disk) == []
        remounted(disk, "size=4m")
        assert kept.take_back(own, tmp_path / "kept")
        assert (disk / "delta.parquet").read_bytes() == NOISE.tobytes()


# no memory ----------------------------------------------------------------------------------------------------------


STARVED = """
import os, resource, sys
from pathlib import Path
import torch
from collateral.deltas.file_format import read_increment
from collateral.errors import CollateralError
from collateral.io.resource_errors import shortage
from collateral.models.tensor_file import read_tensors
torch.set_num_threads(1)
held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (held + 24 * 2**20, resource.RLIM_INFINITY))
try:
    {act}
except CollateralError as error:
    print(error)
except Exception as error:  # what the job's frame does
    print(shortage(error) or repr(error))
"""


def without_memory(act: str, *arguments: object) -> str:
    """Return what a fresh process says that has 24 MiB more than the libraries take, as under a scheduler's limit."""
    command = [sys.executable, "-c", STARVED.format(act=act), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def large_delta(folder: Path) -> Path:
    before = torch.randn(4000, 3000, generator=GENERATOR)
    write_increment(folder / "delta.parquet", {"w": before}, {"w": before + 1}, ABOUT)
    return folder / "delta.parquet"


def large_moment(folder: Path) -> Path:
    matrix = torch.eye(5000, dtype=torch.float32)
    write_tensors({"C": matrix}, folder / "moment.safetensors", {"is": "large"})
    return folder / "moment.safetensors"


@pytest.mark.parametrize(
    ("write", "act"),
    [
        (large_delta, "read_increment(Path(sys.argv[1]))"),
        (large_moment, "read_tensors(Path(sys.argv[1]), 'a moment')"),
    ],
    ids=["delta", "moment"],
)
def test_without_memory_a_reader_says_so_and_calls_no_file_damaged(write, act, tmp_path):
    said = without_memory(act, write(tmp_path))
    assert "there is not enough memory" in said, said
    assert "--set-resources" in said
    assert "delete" not in said
    assert len(said.splitlines()) == 1


def test_torch_without_memory_for_a_tensor_is_one_line():
    said = without_memory("torch.zeros(2**40)")
    assert "there is not enough memory" in said, said
    assert len(said.splitlines()) == 1
    assert shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert "Tried to allocate 2.00 GiB" in str(
        shortage(torch.OutOfMemoryError("Tried to allocate 2.00 GiB."))
    )
    assert shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert shortage(FileNotFoundError(2, "No such file or directory", "x")) is None


# clocks -------------------------------------------------------------------------------------------------------------

JUMPS = (-10 * 365 * 86400, -7200, 7200, 10 * 365 * 86400)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumped_changes_no_file_and_no_answer(jump, tmp_path, origins):
    """Every file as if written at another time: read all the same, written again with the same bytes."""
    for name, write in WRITERS.items():
        path = write(tmp_path / name, origins)
        raw = path.read_bytes()
        for file in left_behind(tmp_path):
            os.utime(file, (time.time() + jump,) * 2)
        check_read(name, path)
        assert write(tmp_path / name, origins).read_bytes() == raw


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumped_takes_no_work_from_a_living_writer(jump, tmp_path):
    """Whoever sweeps away torn files of others may take a living one's only if that is older than the rule says."""
    path = tmp_path / "a.json"
    with whole_file(path) as mine:
        mine.write_text("mine")
        os.utime(mine, (time.time() + jump,) * 2)
        write_text(path, "another's")
        assert mine.exists() == (jump > -STALE)
        if not mine.exists():  # swept away: the writer fails, and what is there stays whole
            mine.write_text("mine again")
    assert path.read_text() in ("mine", "mine again")
    assert left_behind(tmp_path) == [path]


@pytest.mark.parametrize(("jump", "kept_still"), list(zip(JUMPS, (False, True, True, True), strict=True)))
def test_kept_work_of_another_time_is_whole_or_dropped(jump, kept_still, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = Path("results/delta")
    output.parent.mkdir()
    output.write_text("delta")
    own = kept.make_claim("edit", [], [output], {})
    kept.keep(own)
    for path in kept.FOLDER.rglob("*"):
        os.utime(path, (time.time() + jump,) * 2)
    output.unlink()
    assert kept.displace_outputs() == []  # looks at every folder of kept work, as the start of a run does
    assert kept.take_back(own) == kept_still
    if kept_still:
        assert output.read_text() == "delta"
        assert abs(output.stat().st_mtime - time.time()) < 60  # newer than its inputs by today's clock


@pytest.mark.parametrize(("jump", "refused"), list(zip(JUMPS, (False, False, True, True), strict=True)))
def test_a_run_on_another_machine_with_another_clock(jump, refused, tmp_path):
    """A sign of life in the future counts as one; of this machine, whose lock is free, none is needed."""
    folder = tmp_path / ".snakemake"
    folder.mkdir()
    for host in ("elsewhere", run_lock.socket.gethostname()):
        about = {"host": host, "pid": 1, "began": "then", "remote": False}
        write_json(folder / run_lock.RECORD, about)
        os.utime(folder / run_lock.RECORD, (time.time() + jump,) * 2)
        if refused and host == "elsewhere":
            assert "another run is at work" in refusal(lambda: run_lock.hold_run(tmp_path).__enter__())
        else:
            with run_lock.hold_run(tmp_path):
                assert (folder / run_lock.RECORD).exists()
