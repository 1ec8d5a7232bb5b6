"""Changes: environments, proposals, reviews, merges, roll-backs, and the proof of how a snapshot got where it is.

Operations live in `environments`, `proposing`, `reviewing`, `merging`; `standing` says where a change stands,
`requirements` which checks it needs, `provenance` why production may serve.
"""
