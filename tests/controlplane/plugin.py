"""The fixture `kube`: a real Kubernetes control plane, one for the whole run, built first if need be.

And `client_go`: the program that campaigns for a Lease with client-go, built in the same way.
"""

import pytest

from tests.controlplane.build import Unavailable, elector, programs
from tests.controlplane.controlplane import ControlPlane


@pytest.fixture(scope="session")
def say(pytestconfig):
    """Show a line now: neither captured as a test's output nor kept back where the output is no terminal."""
    plugin = pytestconfig.pluginmanager.getplugin

    def show(line):
        with plugin("capturemanager").global_and_fixture_disabled():
            plugin("terminalreporter").write_line(line)
            plugin("terminalreporter").flush()

    return show


@pytest.fixture(scope="session")
def client_go(say, backends):
    """The path of client-go's elector, or a skip that says why there is none."""
    try:
        return elector(say)
    except Unavailable as reason:
        backends.lack("client-go", str(reason))


@pytest.fixture(scope="session")
def kube(say, backends):
    """A running `ControlPlane` with users `admin` (may do all) and `nobody` (nothing), or a skip that says why not."""
    backends.have("kube", "failed")  # what the last line of the run says unless the next lines end well
    try:
        folder = programs(say)
    except Unavailable as reason:
        backends.lack("kube", str(reason))
    else:
        with ControlPlane(folder, users={"nobody": []}) as plane:
            backends.have("kube", plane.version)
            yield plane
