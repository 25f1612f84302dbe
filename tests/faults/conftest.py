"""What the tests of this folder are given."""

from tests.faults.rival import contend, lease  # noqa: F401 - fixtures
from tests.faults.rounds import anchor, contest, counters, figure, pytest_generate_tests, soak  # noqa: F401 - fixtures
