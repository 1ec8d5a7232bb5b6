"""Data against its peers on the same machine in one run: CPU seconds and bytes first.

    python benchmarks/data.py [--quick] [--peers FOLDER] [--only tables]

Each `data_<area>.py` beside this file has `figures(quick, peers)`, which yields one record a figure. `peers` is the
Python of a virtual environment that holds `dvc` and `deltalake`; it is made in `--peers` (default: a temporary folder)
by `uv` when it is not there. Prints one JSON object a line; exit code 1 when a figure misses its target.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

PEERS = ("dvc", "deltalake", "pyarrow")


def peers_in(folder: Path) -> Path:
    """The Python of the peers' environment, made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", str(folder), *PEERS], check=True)
    return python


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="smaller data")
    arguments.add_argument("--peers", type=Path, help="folder of the peers' virtual environment")
    arguments.add_argument("--only", default="", help="one area, for example tables")
    given = arguments.parse_args()
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    areas = sorted(path.stem for path in here.glob("data_*.py") if given.only in ("", path.stem.removeprefix("data_")))
    met = True
    with tempfile.TemporaryDirectory() as folder:
        peers = peers_in(given.peers or Path(folder) / "peers")
        for area in areas:
            for record in import_module(area).figures(given.quick, peers):
                print(json.dumps(record), flush=True)
                met &= record["met"]
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
