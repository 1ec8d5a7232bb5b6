"""Identity of work: the code that a step reaches, the project's files, the runtime, and the recipe made of them."""

from everloop.flows.identity.closure import closure_hash, explain
from everloop.flows.identity.platform import runner_identity
from everloop.flows.identity.recipe import recipe
from everloop.flows.identity.remembered import Closure
from everloop.flows.identity.runtime import Runtime, runtime
from everloop.flows.identity.tree import Tree, project_tree

__all__ = [
    "Closure",
    "Runtime",
    "Tree",
    "closure_hash",
    "explain",
    "project_tree",
    "recipe",
    "runner_identity",
    "runtime",
]
