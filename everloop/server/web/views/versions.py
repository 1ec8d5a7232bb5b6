"""Any version: what it says, its names, what it came from and what came of it."""

from markupsafe import Markup
from starlette.responses import Response

from everloop.catalog import versions
from everloop.core.grants import Target
from everloop.server.web.dag import Node, svg
from everloop.server.web.visit import Visit

_MOST = 60
"""Nodes of one drawing; nearer ones first."""


def show(visit: Visit) -> Response:
    """One version by id, the beginning of one, `kind/name` or `kind/name@7`."""
    ctx = visit.ctx
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, visit.part("spec"))
        ctx.need("read", Target(row.kind, row.name))
        names = versions.known_as(tx, ctx.project, row.id)
        up = versions.upstream(tx, ctx.project, row.id, 1)
        down = versions.downstream(tx, ctx.project, row.id, 1)[:200]
        labels = versions.labels(tx, ctx.project, [*(e.from_id for e in up), *(e.to_id for e in down)])
    facts = visit.ask("audit.facts", subject=row.key, limit=20).facts if visit.may("audit.facts") else None
    return visit.page(
        "version.html",
        title=f"{row.key} v{row.number}",
        version=row,
        names=names,
        upstream=up,
        downstream=down,
        labels=labels,
        facts=facts,
    )


def lineage(visit: Visit) -> Response:
    """The graph around a version."""
    depth = visit.whole("depth", 4) or 4
    found = visit.ask("lineage.show", version=visit.part("spec"), depth=min(depth, 64))
    labels = {node.id: node.label for node in found.nodes}
    columns = visit.ask("lineage.columns", version=found.subject, depth=1)
    by_column: dict[str, list[object]] = {name: [] for name in columns.columns}
    for edge in columns.edges:
        if edge.to_version == found.subject:
            by_column.setdefault(edge.to_column, []).append(edge)
    return visit.page(
        "lineage.html",
        title=f"Lineage of {labels[found.subject]}",
        subject=found.subject,
        label=labels[found.subject],
        labels=labels,
        edges=found.edges,
        nodes=found.nodes,
        depth=depth,
        columns=by_column,
        tags=columns.tags,
        drawing=drawing(visit, found.subject, depth=min(depth, 64)),
    )


def drawing(visit: Visit, identity: str, *, depth: int = 4) -> Markup:
    """The graph around a version as SVG; every text in it is escaped."""
    found = visit.ask("lineage.show", version=identity, depth=depth)
    kept = found.nodes[:_MOST]
    ids = {node.id for node in kept}
    nodes = []
    for node in kept:
        name, _, number = node.label.rpartition(" v")
        title = f"{name.partition('/')[2]} v{number}"
        kind = f"{node.kind} subject" if node.id == found.subject else node.kind
        nodes.append(Node(node.id, title, node.kind, address_of(visit, node.kind, node.label, node.id), kind))
    edges: dict[tuple[str, str], str] = {}
    for edge in found.edges:
        if edge.source in ids and edge.to in ids:
            pair = (edge.source, edge.to)
            edges[pair] = f"{edges[pair]}, {edge.role}" if pair in edges else edge.role
    return Markup(svg(nodes, edges))  # noqa: S704 - svg escapes labels, notes and addresses


def address_of(visit: Visit, kind: str, label: str, identity: str) -> str:
    """Where a version is shown best: a model and data have pages of their own."""
    name, _, number = label.partition("/")[2].rpartition(" v")
    if kind == "model":
        return visit.at("models", name, number)
    if kind == "data":
        return visit.at("data", name, version=number)
    return visit.at("versions", identity)
