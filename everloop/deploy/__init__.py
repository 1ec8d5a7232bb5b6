"""Kubernetes manifests of an Everloop: written from a few values, and checked before anybody applies them.

Pure: nothing here speaks to a cluster. `spec.Deployed` says what is wanted, `whole.manifests` gives everything for it,
`checking.checked` holds each manifest to the shape of its kind and all of them to each other, `writing` makes YAML, and
`charting` a Helm chart.

To add a kind: a function in `objects` or `ray` that gives its manifest as plain values (it takes a `Deployed` for names
and labels), its shape as a model in `shapes` or `ray_shapes` listed in that module's `KINDS`, and a line in
`whole.manifests` if every deployment has one. What refers to other objects by name belongs into `checking.references`.
For models behind Ray Serve: `ray.service(deployed, name, applications, groups)`.
"""
