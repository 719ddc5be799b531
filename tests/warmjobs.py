"""Jobs of a workflow in forks of a process that has the libraries loaded: their import takes most of a small job.

Only third-party libraries are loaded ahead; a job imports the package itself, from its own project's folder. As a
program this file is Snakemake (`run`), whose jobs' Python is the client below, or the server of the forks (`serve`).
"""

import array
import atexit
import contextlib
import functools
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

RECORDED = "WARM_RECORDED"  # a folder that jobs' scripts are copied to, each with what Snakemake tells it
PROCESS = "WARM_PROCESS"  # a file that a job writes its process's number into
CLIENT = """#!{python} -IS
import array, json, os, socket, sys
if len(sys.argv) != 2 or "/.snakemake/scripts/" not in sys.argv[1]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    about = json.dumps({{"script": sys.argv[1], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    link.sendmsg([len(about).to_bytes(8, "big")], files)
    link.sendall(about)
    status = link.recv(1)
sys.exit(status[0] if status else 137)
"""


def snakemake() -> list[str]:
    """Return the command that is Snakemake with warm jobs."""
    return [sys.executable, __file__, "run", str(client())]


@functools.cache
def client() -> Path:
    """Return the program that runs a job's script; its server lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, program = str(folder / "socket"), folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", address],
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        env={**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    atexit.register(server.kill)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return program


def serve(address: str) -> None:
    import transformers.models.llama.modeling_llama  # noqa: F401 (these are what jobs wait for)

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
        sys.argv = [about["script"]]
        if RECORDED in about["env"]:
            shutil.copy(about["script"], about["env"][RECORDED])
        if PROCESS in about["env"]:
            Path(about["env"][PROCESS]).write_text(str(os.getpid()))
        paths = [path for path in about["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [str(Path(about["script"]).parent), *paths, *sys.path[1:]]
        runpy.run_path(about["script"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def run(client: str, arguments: list[str]) -> None:
    from snakemake.cli import main

    sys.executable = client
    sys.argv = ["snakemake", *arguments]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.path.pop(0)  # of this file, not of the study
        run(sys.argv[2], sys.argv[3:])
