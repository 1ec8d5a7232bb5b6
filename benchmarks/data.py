"""Data against its peers on the same machine in one run: CPU seconds and bytes first.

    python benchmarks/data.py [--quick] [--peers FOLDER] [--only tables]

Each `data_<area>.py` beside this file has `figures(quick, peers)`, which yields one record a figure (`figure.py` says
what is in it). `peers` is the Python of a virtual environment that holds `dvc` and `deltalake`; it is made in `--peers`
when it is not there. Prints one JSON object a line; exit code 1 when a figure misses its target. `--quick` takes
smaller data and a minute; all of it takes a quarter of an hour on two quiet cores.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from figure import Record, finish

PEERS = ("dvc", "deltalake", "pyarrow")
KEPT = Path.home() / ".cache" / "everloop" / "benchmark-peers"
"""Where the peers' environment is kept between runs."""


def peers_in(folder: Path) -> Path:
    """The Python of the peers' environment, made when it is not there or was not finished."""
    python, finished = folder / "bin" / "python", folder / "finished"
    if finished.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "-p", python, *PEERS], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
    finished.touch()
    return python


def figures(areas: list[str], quick: bool, peers: Path) -> Iterator[Record]:
    """Every figure of some areas."""
    for area in areas:
        yield from import_module(area).figures(quick, peers)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="smaller data")
    arguments.add_argument("--peers", type=Path, default=KEPT, help="folder of the peers' virtual environment")
    arguments.add_argument("--only", default="", help="one area, for example tables")
    given = arguments.parse_args()
    here = Path(__file__).parent
    areas = sorted(path.stem for path in here.glob("data_*.py") if given.only in ("", path.stem.removeprefix("data_")))
    finish(figures(areas, given.quick, peers_in(given.peers)))


if __name__ == "__main__":
    main()
