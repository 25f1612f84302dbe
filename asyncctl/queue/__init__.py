"""Which key is worked on next, and when a failed one is tried again. Knows nothing of Kubernetes and does no I/O."""

from asyncctl.queue.backoff import Backoff, Restarts, jittered, spread
from asyncctl.queue.statistics import NullQueueMetrics, QueueContents, QueueMetrics, QueueStatistics
from asyncctl.queue.token_bucket import TokenBucket
from asyncctl.queue.work_queue import QueueClosed, WorkQueue

__all__ = [
    "Backoff",
    "NullQueueMetrics",
    "QueueClosed",
    "QueueContents",
    "QueueMetrics",
    "QueueStatistics",
    "Restarts",
    "TokenBucket",
    "WorkQueue",
    "jittered",
    "spread",
]
