"""The fixture `kube`: a real Kubernetes control plane, one for the whole run, built first if need be."""

import pytest

from tests.controlplane.build import Unavailable, programs
from tests.controlplane.controlplane import ControlPlane


@pytest.fixture(scope="session")
def kube(pytestconfig, backends):
    """A running `ControlPlane` with users `admin` (may do all) and `nobody` (nothing), or a skip that says why not."""
    plugin = pytestconfig.pluginmanager.getplugin

    def say(line):
        """Show a line now: neither captured as a test's output nor kept back where the output is no terminal."""
        with plugin("capturemanager").global_and_fixture_disabled():
            plugin("terminalreporter").write_line(line)
            plugin("terminalreporter").flush()

    backends.have("kube", "failed")  # what the last line of the run says unless the next lines end well
    try:
        folder = programs(say)
    except Unavailable as reason:
        backends.lack("kube", str(reason))
    else:
        with ControlPlane(folder, users={"nobody": []}) as plane:
            backends.have("kube", plane.version)
            yield plane
