"""Snakemake, its jobs and the workflow's programs in forks of a process that has the libraries loaded.

Their import takes most of a dry run and of a small job. Only third-party libraries are loaded ahead; each fork
imports the package itself, from its own project's folder. The client below is called in Python's place; as a program
this file is the server of the forks.
"""

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

RECORDED = "WARM_RECORDED"  # a folder that jobs' scripts are copied to, each with what Snakemake tells it
PROCESS = "WARM_PROCESS"  # a file that a job writes its process's number into
TRACED = "WARM_TRACED"  # a folder that jobs write into which functions of the package ran
# none that starts threads of its own, as polars does: they do not live on in a fork
LOADED = (
    "transformers.models.llama.modeling_llama",
    "lm_eval.evaluator",
    "scipy.stats",
    "statsmodels.api",
    "altair",
    "snakemake.cli",
)
CLIENT = """#!{python} -IS
import array, json, os, socket, sys
known = sys.argv[1:3] in (["-m", "snakemake"], ["-m", "collateral.cli"])
if not known and not "".join(sys.argv[1:2]).endswith(".py"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    about = {{"client": sys.argv[0], "words": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
    about = json.dumps(about).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    link.sendmsg([len(about).to_bytes(8, "big")], files)
    link.sendall(about)
    status = link.recv(1)
sys.exit(status[0] if status else 137)
"""


def snakemake() -> list[str]:
    """Return the command that is Snakemake, warm as its jobs are."""
    return [str(client()), "-m", "snakemake"]


@functools.cache
def client() -> Path:
    """Return a warm Python for Snakemake and for scripts, and a usual one for all else.

    Its server lives as long as this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, program = str(folder / "socket"), folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        env={**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    atexit.register(server.kill)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return program


def serve(address: str) -> None:
    gc.disable()  # imports make no garbage
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if os.fork() == 0:  # ends the server with the process that asked for it
        os.read(0, 1)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(0)
    while True:
        link, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            attend(link)
        link.close()


def attend(link: socket.socket) -> None:
    """Fork the job, tell the client its status, and kill it if the client is gone."""
    size, files = received(link)
    about = json.loads(link.recv(size, socket.MSG_WAITALL))
    job = os.fork()
    if job == 0:
        link.close()
        os.setpgid(0, 0)
        work(about, files)

    def watch() -> None:
        if not link.recv(1):
            with contextlib.suppress(ProcessLookupError):  # the client had its answer
                os.killpg(job, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(job, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(BrokenPipeError):  # the client was killed
        link.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def received(link: socket.socket) -> tuple[int, list[int]]:
    files = array.array("i")
    head, ancillary, _, _ = link.recvmsg(8, socket.CMSG_LEN(3 * files.itemsize))
    files.frombytes(ancillary[0][2])
    return int.from_bytes(head, "big"), list(files)


def work(about: dict, files: list[int]) -> None:
    status = 1
    try:
        for number, own in enumerate(files):
            os.dup2(own, number)
            os.close(own)
        os.chdir(about["cwd"])
        os.environ.clear()
        os.environ.update(about["env"])
        sys.executable = about["client"]
        sys.dont_write_bytecode = about["env"].get("PYTHONDONTWRITEBYTECODE", "") != ""
        atexit._clear()  # what is of the server
        began(about["words"], about["env"])
        paths = [path for path in about["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
        if about["words"][0] == "-m":
            sys.argv = about["words"][1:]
            sys.path[:] = [about["cwd"], *paths, *sys.path[1:]]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = about["words"]
            sys.path[:] = [str(Path(sys.argv[0]).resolve().parent), *paths, *sys.path[1:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = ended(end)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def began(words: list[str], environment: dict[str, str]) -> None:
    """Record a job that begins, where it was asked for."""
    if "/.snakemake/scripts/" in words[0] and RECORDED in environment:
        shutil.copy(words[0], environment[RECORDED])
    if "/.snakemake/scripts/" in words[0] and PROCESS in environment:
        Path(environment[PROCESS]).write_text(str(os.getpid()))
    if "/.snakemake/scripts/" in words[0] and TRACED in environment:
        trace(words[0], Path(environment[TRACED]))


def trace(script: str, folder: Path) -> None:
    """Write at the end of this process which functions of the package ran, but for those that imports called."""
    package = f"{Path('src/collateral').resolve()}{os.sep}"
    codes: dict[int, Any] = {}
    importing = threading.local()
    told: dict[str, Any] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if code.co_name == "<module>":
            if code.co_filename == script:
                told.setdefault("globals", frame.f_globals)
            elif code.co_filename.startswith(package):
                importing.depth = getattr(importing, "depth", 0) + {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and id(code) not in codes and not getattr(importing, "depth", 0):
            codes[id(code)] = code

    def write() -> None:
        sys.setprofile(None)
        job = told["globals"]["snakemake"]
        ran = {
            (code.co_filename.removeprefix(package), code.co_firstlineno, code.co_qualname)
            for code in codes.values()
            if code.co_filename.startswith(package)
        }
        about = {"rule": job.rule, "code": job.params.code, "output": str(job.output[0]), "ran": sorted(ran)}
        (folder / f"{os.getpid()}.json").write_text(json.dumps(about))

    atexit.register(write)
    threading.setprofile(watch)
    sys.setprofile(watch)


def ended(end: SystemExit) -> int:
    """Say what a program says that ends itself, and return its exit status."""
    if isinstance(end.code, str):
        sys.stderr.write(f"{end.code}\n")
    return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
