"""Traces of programs that ask models, and what judges them, as plain functions over a `Tx`.

`traces`, `spans`, `assessments`, `datasets`, `scorers` hold the verbs, `rows` the values, `summary` the rules by which
spans become a trace's figures; `searching` reads the filter language and `metrics` sums.
"""
