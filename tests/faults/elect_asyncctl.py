"""A program of asyncctl that does nothing while it leads but say so: one line when it begins, one when it ends."""

import anyio

from asyncctl.operator.operator import Operator
from asyncctl.operator.process import run

elect = Operator("elect")


@elect.background
async def lead(running):
    running.logger.info("started leading")
    try:
        await anyio.sleep_forever()
    finally:
        running.logger.info("stopped leading")


if __name__ == "__main__":
    run(elect)
