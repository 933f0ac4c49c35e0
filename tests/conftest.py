"""How hard properties are searched for counter-examples.

`quick` is what every run of the suite does, the same examples each time. `campaign` tries many new ones; it is what the
tests marked so use, and all others with HYPOTHESIS_PROFILE=campaign.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "campaign", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
