"""Checks: objectives, gates on data and models, their evidence, and the model card.

Importing the package loads the definitions only; numpy and Polars come with `verdicts`, the catalog
with `record` and `card`.
"""

from everloop.checks.definitions import Candidate, CheckDef, Objective, ObjectiveDef, Verdict

__all__ = ["Candidate", "CheckDef", "Objective", "ObjectiveDef", "Verdict"]
