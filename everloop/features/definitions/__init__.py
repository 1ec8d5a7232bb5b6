"""What a feature is: pure values with canonical manifests; importing this loads nothing heavy.

Every number that changes an answer (window, hop, decimal scale, filter) is in the manifest, hence in the
version id: two views with the same id give the same values, in batch and online.
"""

from everloop.features.definitions.feature import FOREVER as FOREVER
from everloop.features.definitions.feature import FUNCTIONS as FUNCTIONS
from everloop.features.definitions.feature import Feature as Feature
from everloop.features.definitions.feature import Value as Value
from everloop.features.definitions.feature import hop_of as hop_of
from everloop.features.definitions.filters import Where as Where
from everloop.features.definitions.functions import count as count
from everloop.features.definitions.functions import last as last
from everloop.features.definitions.functions import max as max  # noqa: A004 - reads as authors say it: el.max(…)
from everloop.features.definitions.functions import mean as mean
from everloop.features.definitions.functions import min as min  # noqa: A004 - el.min(…)
from everloop.features.definitions.functions import sum as sum  # noqa: A004 - el.sum(…)
from everloop.features.definitions.services import FeatureServiceDef as FeatureServiceDef
from everloop.features.definitions.views import FeatureViewDef as FeatureViewDef
from everloop.features.definitions.views import Timed as Timed
