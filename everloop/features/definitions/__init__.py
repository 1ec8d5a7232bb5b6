"""What a feature is: pure values with canonical manifests; importing this loads nothing heavy.

Every number that changes an answer (window, hop, decimal scale, filter) is in the manifest, hence in the
version id: two views with the same id give the same values, in batch and online.
"""

from everloop.features.definitions.feature import FOREVER as FOREVER
from everloop.features.definitions.feature import FUNCTIONS as FUNCTIONS
from everloop.features.definitions.feature import Feature as Feature
from everloop.features.definitions.feature import Kind as Kind
from everloop.features.definitions.feature import Output as Output
from everloop.features.definitions.feature import Value as Value
from everloop.features.definitions.feature import hop_of as hop_of
from everloop.features.definitions.filters import Filter as Filter
from everloop.features.definitions.filters import Where as Where
from everloop.features.definitions.filters import all_of as all_of
from everloop.features.definitions.filters import any_of as any_of
from everloop.features.definitions.functions import count as count
from everloop.features.definitions.functions import distinct as distinct
from everloop.features.definitions.functions import first as first
from everloop.features.definitions.functions import histogram as histogram
from everloop.features.definitions.functions import last as last
from everloop.features.definitions.functions import last_k as last_k
from everloop.features.definitions.functions import max as max  # noqa: A004 - reads as authors say it: el.max(…)
from everloop.features.definitions.functions import mean as mean
from everloop.features.definitions.functions import min as min  # noqa: A004 - el.min(…)
from everloop.features.definitions.functions import quantile as quantile
from everloop.features.definitions.functions import ratio as ratio
from everloop.features.definitions.functions import stddev as stddev
from everloop.features.definitions.functions import sum as sum  # noqa: A004 - el.sum(…)
from everloop.features.definitions.functions import top_k as top_k
from everloop.features.definitions.functions import variance as variance
from everloop.features.definitions.services import FeatureServiceDef as FeatureServiceDef
from everloop.features.definitions.views import FeatureViewDef as FeatureViewDef
from everloop.features.definitions.views import Timed as Timed
from everloop.features.definitions.views import by_dataset as by_dataset
from everloop.features.definitions.words import words_of as words_of
