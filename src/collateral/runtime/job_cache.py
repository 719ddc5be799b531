"""Finished work that the workflow has not recorded yet, kept so that no interruption costs it.

Snakemake deletes the outputs of a whole group of jobs when one of them fails, runs all of them again at a retry, and
records nothing of a job that ends after Snakemake itself was killed. So a job that has finished keeps hard links to
its outputs beside the results, under a key of everything that decides them; a job with the same key takes them back
instead of computing. When the workflow has recorded a job, it drops what was kept for it (`runtime.job_events`), so
that what is still kept when a run begins was finished and not recorded. Torch-free.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.io.atomic import read_json, sha256_file
from collateral.io.resource_errors import shortage

log = logging.getLogger(__name__)

FOLDER = Path("results/.kept")
FORGOTTEN = 14 * 86400  # seconds after which work that nobody took back is dropped


@dataclass(frozen=True)
class Claim:
    """What decides a job's outputs.

    Attributes:
        rule: its name.
        inputs: all its files.
        outputs: all its files.
        params: the rule's parameters, the code's fingerprint among them.
    """

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, Any]

    @functools.cached_property
    def key(self) -> str:
        """Return a hash of the outputs' names, and one of rule, parameters, outputs and the inputs' contents."""
        contents = [sha256_file(Path(path)) for path in self.inputs]
        about = [self.rule, list(self.outputs), dict(self.params), contents]
        text = json.dumps(about, sort_keys=True, default=str)
        return f"{hash_names(self.outputs)}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def make_claim(rule: str, inputs: Iterable[Any], outputs: Iterable[Any], params: Mapping[str, Any]) -> Claim:
    """Return the claim of a job from what Snakemake tells its script."""
    return Claim(rule, tuple(map(str, inputs)), tuple(map(str, outputs)), dict(params))


def take_back(claim: Claim, folder: Path = FOLDER) -> bool:
    """Put a job's kept outputs in place; return False where none are kept, or one of them is damaged.

    Raises:
        CollateralError: they do not fit on the disk, or may not be written there.
    """
    if not folder.is_dir():
        return False
    place = folder / claim.key
    about = _read_about(place)
    if about is None:
        return False
    for number, sha256 in enumerate(about["sha256"]):
        if not (place / str(number)).is_file() or sha256_file(place / str(number)) != sha256:
            log.warning("%s: what was kept of this job is damaged; it is computed again", place)
            shutil.rmtree(place, ignore_errors=True)
            return False
    for number, name in enumerate(claim.outputs):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _link(place / str(number), path)
        except OSError as error:
            raise shortage(error, path) or error from None
        os.utime(path)  # newer than the inputs, which may themselves have just been taken back
    return True


def keep(claim: Claim, folder: Path = FOLDER) -> None:
    """Keep the outputs of a finished job; a disk that is full, or has no links, loses the job nothing."""
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        for number, name in enumerate(claim.outputs):
            _link(Path(name), partial / str(number))
        sums = [sha256_file(Path(name)) for name in claim.outputs]
        about = {"outputs": list(claim.outputs), "sha256": sums}
        (partial / "about.json").write_text(json.dumps(about), encoding="utf-8")
        place = folder / claim.key
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    except OSError as error:
        log.info("the outputs are not kept aside: %s", error)
        if partial is not None:  # on a full disk its room is needed
            shutil.rmtree(partial, ignore_errors=True)


def drop_recorded(recorded: Container[str], workdir: Path = Path()) -> None:
    """Drop what was kept of jobs that the workflow has recorded; they are named by `hash_names` of their outputs."""
    for place in (workdir / FOLDER).glob("*-*"):
        if place.name.partition("-")[0] in recorded:
            shutil.rmtree(place, ignore_errors=True)


def drop_finished(workdir: Path = Path()) -> None:
    """Drop what was kept of jobs whose outputs exist, at the end of a run, which has recorded all of them."""
    for place, outputs in _list_kept(workdir):
        if all(path.is_file() for path in outputs):
            shutil.rmtree(place, ignore_errors=True)


def displace_outputs(workdir: Path = Path()) -> list[str]:
    """Remove the outputs of finished jobs that a killed run has not recorded, and return their names; they stay kept.

    To Snakemake they would look finished under whatever settings it has now. So their jobs start again, and take back
    what was kept if it still is what they would make. To be called when no job is running.
    """
    displaced: list[str] = []
    for _, outputs in _list_kept(workdir):
        if all(path.is_file() for path in outputs):
            for path in outputs:
                path.unlink()
            displaced += [path.relative_to(workdir).as_posix() for path in outputs]
    return displaced


def hash_names(outputs: Iterable[str]) -> str:
    """Return what names a job among the kept ones: a hash of its outputs' names."""
    return hashlib.sha256("\n".join(sorted(outputs)).encode()).hexdigest()[:16]


def _list_kept(workdir: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder of kept work and its outputs' places; what is torn or forgotten is dropped."""
    for place in sorted((workdir / FOLDER).glob("*")):
        about = _read_about(place)
        if about is None or time.time() - place.stat().st_mtime > FORGOTTEN:
            shutil.rmtree(place, ignore_errors=True)
        else:
            yield place, [workdir / name for name in about["outputs"]]


def _read_about(place: Path) -> dict[str, Any] | None:
    """Return what a folder keeps; None where it holds nothing whole."""
    try:
        about: dict[str, Any] = read_json(place / "about.json")
    except CollateralError:
        return None
    return about if place.is_dir() and not place.name.startswith(".") else None


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or where the disk cannot, a copy; the name is whole or absent."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(
            missing_ok=True
        )  # of a failure; and renaming onto another name of the same file does nothing
