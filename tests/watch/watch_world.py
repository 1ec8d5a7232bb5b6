"""A small world: a model trained on 60 days, an endpoint that answers, an ingested log, labels that come late."""

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from everloop.catalog import placements, refs, versions
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label
from everloop.core.clock import DAY
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.codec import DataCodec
from everloop.models.codec import ModelCodec
from everloop.models.training import Fitted
from everloop.serving import columns as wire
from everloop.serving import ingest, log
from everloop.watch import Late, MonitorDef, RetrainDef, every, on_alarm, on_new_rows

BEGIN = 16_000 * DAY
"""Day 0 of training; serving starts on day 60."""
FEATURES = ("origin__load", "weather__wind", "distance")
LAYOUT = wire.Layout(tuple(wire.Column(name, "FP64") for name in FEATURES))
A_DAY = 400


def inputs_of(rng, rows):
    return {
        "origin__load": rng.gamma(4, 2, rows),
        "weather__wind": rng.normal(10, 4, rows),
        "distance": rng.choice([200.0, 600.0, 1400.0, 2400.0], rows),
    }


def chance_of(inputs):
    return 1 / (1 + np.exp(-(inputs["origin__load"] / 4 + inputs["weather__wind"] / 5 - 4.5)))


class World:
    def __init__(self, ctx, *, window="1d"):
        self.ctx, self.clock = ctx, ctx.clock
        self.rng = np.random.default_rng(13)
        self.folder = ctx.home / "serving" / "log" / "g0"
        self.asked = 0
        self.monitor = MonitorDef("delay", "delay", Late("arrivals", "late", delay="12h"), 1, window, (), "on_time")
        self.rule = RetrainDef("delay", [every("30d"), on_alarm("delay"), on_new_rows("flights", 5_000)], "2d")
        self._train()

    def _train(self):
        inputs = inputs_of(self.rng, 60 * A_DAY)
        late = (self.rng.random(60 * A_DAY) < chance_of(inputs)).astype(np.int8)
        at = BEGIN + np.sort(self.rng.integers(0, 60 * DAY, 60 * A_DAY))
        frame = pl.DataFrame({"at": at, **inputs, "late": late}).with_columns(pl.col("at").cast(pl.Datetime("us")))
        parts = {"training": frame[: 45 * A_DAY], "holdout": frame[45 * A_DAY :]}
        made = {}
        for role, part in parts.items():
            saved = DataCodec().save(part, f"delay_{role}", self.ctx.store, {})
            version = Version("frame", f"delay_{role}", saved.version.manifest)
            with self.ctx.write() as tx:
                placements.put(tx, self.ctx.project, saved.placements)
                self.put(tx, version)
            made[role] = version.id
        fitted = LogisticRegression().fit(parts["training"].select(FEATURES).to_numpy(), parts["training"]["late"])
        facts = {
            "columns": list(FEATURES),
            "label": "late",
            "inputs": {"frame": made["training"], "holdout": made["holdout"]},
        }
        saved = ModelCodec().save(
            Fitted(fitted, parts["training"].select(FEATURES), parts["holdout"]), "delay", self.ctx.store, facts
        )
        edges = (("frame", made["training"]), ("holdout", made["holdout"]))
        model = Version("model", "delay", saved.version.manifest, edges)
        revision = Version("revision", "delay", {"models": {"champion": model.id}}, (("model:champion", model.id),))
        objective = {"name": "on_time", "metric": "roc_auc", "at_least": "0.7", "owner": "ops"}
        held = [model, self.monitor.version(), self.rule.version(), Version("objective", "on_time", objective)]
        snapshot = Snapshot({v.key: v.id for v in held}).version()
        with self.ctx.write() as tx:
            for version in (*held, revision, snapshot):
                self.put(tx, version)
            refs.move(tx, self.ctx.project, "env/production", old=None, new=snapshot.id, actor="ada", at=self.ctx.now())
        self.model, self.revision, self.estimator = model.id, revision.id, fitted

    def put(self, tx, version):
        return versions.put(tx, self.ctx.project, version, actor="ada", at=self.ctx.now())

    def serve(self, day, rows=A_DAY, change=lambda inputs: inputs, concept=lambda chances: chances):
        """One day of traffic; labels follow what really was, eight hours later (some never come)."""
        inputs = inputs_of(self.rng, rows)
        truth = concept(chance_of(inputs))
        seen = change(inputs)
        scores = self.estimator.predict_proba(np.column_stack([np.nan_to_num(seen[n]) for n in FEATURES]))[:, 1]
        appender = log.Appender(self.folder)
        labels = []
        for i in range(rows):
            at = BEGIN + (60 + day) * DAY + i * DAY // rows
            answer = {"prediction": scores[i : i + 1]}
            outputs = wire.describe(answer)
            self.asked += 1
            entry = log.Entry(
                id=f"p{self.asked}",
                at=at,
                wall=at,
                project=self.ctx.project,
                endpoint="delay",
                revision=self.revision,
                rows=1,
                layout=LAYOUT.pairs(),
                inputs=LAYOUT.pack({n: [float(seen[n][i])] for n in FEATURES}, 1),
                outputs=[o.listed() for o in outputs],
                answer=wire.pack_answer(outputs, answer),
                keys={},
                micros=900,
                fallback="",
                route="predict",
            )
            appender.append(entry)
            if self.rng.random() < 0.97:
                labels.append(Label(entry.id, bool(self.rng.random() < truth[i]), at + 8 * 3_600_000_000))
        appender.close()
        ingest.ingest(self.ctx.catalog, self.ctx.home)
        with self.ctx.write() as tx:
            predictions.add_labels(tx, self.ctx.project, labels, actor="ops", recorded=self.ctx.wall())
        self.clock.advance(BEGIN + (61 + day) * DAY)
