"""``python -m benchmarks.install [PEER...]``: an environment of its own for each peer.

What one peer needs must not choose the versions of another's, and none of them is a
dependency of parallelz.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

DEFAULT_VENVS = Path(__file__).parent / ".venvs"

_COMMON = ("numpy", "psutil")
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "loky": ("loky", *_COMMON),
    "mpi4py": ("mpi4py", "mpich", *_COMMON),
    "ray": ("ray", *_COMMON),
    "parsl": ("parsl", *_COMMON),
    "dask": ("distributed", *_COMMON),
    "ipyparallel": ("ipyparallel", *_COMMON),
    "py-spy": ("py-spy",),  # not a peer: what `benchmarks.profile` looks with
}


def script_dir(venvs: Path, name: str) -> Path:
    """Return where the programs of an environment are, be it there or not."""
    return venvs / name / ("Scripts" if os.name == "nt" else "bin")


def python_of(venvs: Path, name: str) -> Path:
    """Return the interpreter of an environment, be it there or not."""
    return script_dir(venvs, name) / ("python.exe" if os.name == "nt" else "python")


def install(venvs: Path, name: str) -> bool:
    """Create or update an environment; return whether everything could be installed."""
    if not python_of(venvs, name).exists():
        venv.create(venvs / name, with_pip=True)
    command = [str(python_of(venvs, name)), "-m", "pip", "install", "--quiet", "--upgrade"]
    # A wheel or nothing: what would have to be compiled first is not measured.
    command += ["--only-binary", ":all:", *REQUIREMENTS[name]]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.install", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PEER", help=", ".join(REQUIREMENTS))
    parser.add_argument("--venvs", type=Path, default=DEFAULT_VENVS)
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in REQUIREMENTS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there is: {', '.join(REQUIREMENTS)}")
    failed = []
    for name in args.names or REQUIREMENTS:
        print(f"{name} ...", flush=True)
        if not install(args.venvs, name):
            failed.append(name)
    if failed:
        print(f"not installed, and so not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
