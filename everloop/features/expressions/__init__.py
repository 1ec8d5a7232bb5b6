"""Row-level expressions: a small typed tree over the columns of one fact, with one evaluation for batch and push.

`tree` and `author` are pure: what a view's manifest holds, and what authors write (`el.col("price") * el.col("n")`).
`sql` and `polars` translate a supported part of these languages into the tree. `evaluate` computes it with NumPy.
"""

from everloop.features.expressions.author import Expr as Expr
from everloop.features.expressions.author import coalesce as coalesce
from everloop.features.expressions.author import col as col
from everloop.features.expressions.author import expr as expr
from everloop.features.expressions.author import greatest as greatest
from everloop.features.expressions.author import least as least
from everloop.features.expressions.author import when as when
from everloop.features.expressions.tree import Node as Node
