"""A program that campaigns for a Lease with kubernetes-asyncio's `leaderelection`, and says when it leads.

That library has no release: a leader that ends leaves the Lease to run out. It refuses periods below a second; shorter
ones are set once it has checked its configuration. Otherwise it is as it comes.
"""

import argparse
import asyncio
import json
import signal
import sys
from datetime import UTC, datetime

from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.leaderelection.electionconfig import Config
from kubernetes_asyncio.leaderelection.leaderelection import LeaderElection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock


def say(identity, message):
    line = {"ts": datetime.now(UTC).isoformat(), "msg": message, "identity": identity}
    print(json.dumps(line), flush=True)


async def campaign(told):
    async def lead():
        say(told.identity, "started leading")
        try:
            await asyncio.Event().wait()
        finally:
            say(told.identity, "stopped leading")

    async def lost():
        sys.exit("the Lease is lost")

    configuration = Configuration()
    await config.load_kube_config(config_file=told.kubeconfig, client_configuration=configuration)
    async with ApiClient(configuration) as client:
        lock = LeaseLock(told.name, told.namespace, told.identity, client)
        election = Config(
            lock, lease_duration=told.lease_duration, renew_deadline=told.lease_duration - 0.5, retry_period=1,
            onstarted_leading=lead, onstopped_leading=lost,
        )  # fmt: skip
        election.renew_deadline, election.retry_period = told.renew_deadline, told.retry_period
        say(told.identity, "campaigns")
        task = asyncio.ensure_future(LeaderElection(election).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return  # what leads is cancelled as the loop ends


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    for name in ("kubeconfig", "namespace", "name", "identity"):
        options.add_argument(f"--{name}", required=True)
    options.add_argument("--lease-duration", type=int, required=True)  # whole seconds: it writes what it is given
    options.add_argument("--renew-deadline", type=float, required=True)
    options.add_argument("--retry-period", type=float, required=True)
    asyncio.run(campaign(options.parse_args()))
