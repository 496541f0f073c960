"""Give peers a virtual environment each: `python -m benchmarks.install [PEER ...]`."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = {
    "loky": ["loky"],
    "mpi4py": ["mpi4py", "openmpi"],
    "ray": ["ray"],
    "parsl": ["parsl"],
    "dask": ["distributed"],
    "ipyparallel": ["ipyparallel"],
}


def main() -> int:
    """Install; return the exit status: 1 if any peer cannot be had."""
    status = 0
    for peer in sys.argv[1:] or PACKAGES:
        directory = Path(__file__).parent / ".venvs" / peer
        venv.create(directory, with_pip=True, clear=True)
        command = [directory / "bin" / "pip", "install", "--quiet", "numpy", "psutil"]
        status |= bool(subprocess.run([*command, *PACKAGES[peer]], check=False).returncode)
    return status


if __name__ == "__main__":
    sys.exit(main())
