"""Hypothesis profiles: quick by default, thorough with ``--hypothesis-profile=ci``."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.register_profile(
    "ci", settings.get_profile("default"), max_examples=2_000, print_blob=True
)
settings.load_profile("default")
