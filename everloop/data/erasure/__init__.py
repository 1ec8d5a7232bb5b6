"""Erasing one subject (a person) from everything that is stored, provably, with every version still readable.

`subjects` says whose rows are meant, `filters` finds the objects that may hold them, `rewriting` puts redacted objects
in their place, `erasing` leads the whole from the first record to the signed receipt, `proofs` shows offline whether a
training frame held a subject.
"""
