# What type checkers and editors see of `import everloop as el`; at run time each name is loaded when it is first used.
from everloop.checks import verdicts as verdicts
from everloop.checks.definitions import Candidate as Candidate
from everloop.checks.definitions import Objective as Objective
from everloop.checks.definitions import Verdict as Verdict
from everloop.core.inside.reporting import report as report
from everloop.data import expect as expect
from everloop.data.definitions import SQL as SQL
from everloop.data.definitions import Call as Call
from everloop.data.definitions import Files as Files
from everloop.data.definitions import Folder as Folder
from everloop.data.definitions import Query as Query
from everloop.data.definitions import Table as Table
from everloop.data.evolution import Evolution as Evolution
from everloop.data.streams.origins import Kafka as Kafka
from everloop.data.streams.origins import Push as Push
from everloop.data.streams.origins import RedisStream as RedisStream
from everloop.data.trees.reading import Tree as Tree
from everloop.features.definitions import all_of as all_of
from everloop.features.definitions import any_of as any_of
from everloop.features.definitions import count as count
from everloop.features.definitions import distinct as distinct
from everloop.features.definitions import first as first
from everloop.features.definitions import histogram as histogram
from everloop.features.definitions import last as last
from everloop.features.definitions import last_k as last_k
from everloop.features.definitions import max as max  # noqa: A004 - reads as authors say it: el.max(…)
from everloop.features.definitions import mean as mean
from everloop.features.definitions import min as min  # noqa: A004 - el.min(…)
from everloop.features.definitions import quantile as quantile
from everloop.features.definitions import ratio as ratio
from everloop.features.definitions import stddev as stddev
from everloop.features.definitions import sum as sum  # noqa: A004 - el.sum(…)
from everloop.features.definitions import top_k as top_k
from everloop.features.definitions import variance as variance
from everloop.features.expressions import coalesce as coalesce
from everloop.features.expressions import col as col
from everloop.features.expressions import expr as expr
from everloop.features.expressions import greatest as greatest
from everloop.features.expressions import least as least
from everloop.features.expressions import when as when
from everloop.features.vectors.definitions import vector as vector
from everloop.flows.control import Retry as Retry
from everloop.flows.control import map as map  # noqa: A004 - el.map(…)
from everloop.flows.search.definitions import Hyperband as Hyperband
from everloop.flows.search.definitions import Median as Median
from everloop.flows.search.definitions import choice as choice
from everloop.flows.search.definitions import floats as floats
from everloop.flows.search.definitions import ints as ints
from everloop.flows.search.definitions import search as search
from everloop.models.selection.definitions import select as select
from everloop.project import Project as Project
from everloop.project.steps import limits as limits
from everloop.serving.definitions import AllAtOnce as AllAtOnce
from everloop.serving.definitions import Canary as Canary
from everloop.serving.definitions import Guardrails as Guardrails
from everloop.serving.definitions import Limits as Limits
from everloop.serving.definitions import Shadow as Shadow
from everloop.serving.definitions import Workers as Workers
from everloop.serving.graph.nodes import CallEndpoint as CallEndpoint
from everloop.serving.graph.nodes import Ensemble as Ensemble
from everloop.serving.graph.nodes import Lookup as Lookup
from everloop.serving.graph.nodes import Model as Model
from everloop.serving.graph.nodes import Sequence as Sequence
from everloop.serving.graph.nodes import Splitter as Splitter
from everloop.serving.graph.nodes import Step as Step
from everloop.serving.graph.nodes import Switch as Switch
from everloop.serving.graph.nodes import Transform as Transform
from everloop.watch.definitions import Late as Late
from everloop.watch.definitions import every as every
from everloop.watch.definitions import on_alarm as on_alarm
from everloop.watch.definitions import on_new_rows as on_new_rows
from everloop.workspace.direct import capture as capture

__version__: str
