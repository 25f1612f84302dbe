"""What the tests of this folder are given."""

from tests.faults.rival import contend, lease, leases  # noqa: F401 - fixtures
