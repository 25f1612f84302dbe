"""The fixture `prometheus`: the folder of a real Prometheus and its promtool, fetched first if need be."""

import subprocess

import pytest

from tests.prometheus.fetch import Unavailable, programs


@pytest.fixture(scope="session")
def prometheus(backends):
    """The folder that holds `prometheus` and `promtool`, or a skip that says why there is none."""
    backends.have("prometheus", "failed")  # what the last line of the run says unless the next lines end well
    try:
        folder = programs()
    except Unavailable as reason:
        backends.lack("prometheus", str(reason))
    said = subprocess.run([folder / "promtool", "--version"], check=True, capture_output=True, text=True).stdout
    backends.have("prometheus", said.split()[2].partition("+")[0])
    return folder
