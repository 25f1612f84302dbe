"""Every name that a program shows, with its labels and what to make of it: the definitions behind `docs/metrics.md`.

Names, types, labels and buckets of what controller-runtime and client-go have too are theirs, so that dashboards and
alert rules work as they are; sources: controller-runtime `pkg/internal/controller/metrics`, `pkg/internal/metrics`,
`pkg/metrics`. No label ever holds what grows with the objects of a cluster: `LABELS` says what bounds each.
"""

from itertools import accumulate, repeat
from operator import mul

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from asyncctl.observe.instruments import Distributions, Numbers

__all__ = ["CODES", "EXCEEDED", "LABELS", "PRIORITIES", "REQUEST_BUCKETS", "Families"]

RECONCILE_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
    *(15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0),
)  # fmt: skip
QUEUE_BUCKETS = tuple(accumulate(repeat(10.0, 11), mul, initial=10e-9))  # with Go's rounding: labels must be equal
REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PRIORITIES = 25  # that `workqueue_depth` tells apart, as in controller-runtime
CODES = 40  # that requests are told apart by: a server has twenty, one that makes them up has hundreds
EXCEEDED = "exceeded_cardinality_limit"  # as in controller-runtime: what a label holds once it has held too many

LABELS = {
    "controller": "name of a controller, as declared",
    "result": "`success`, `error`, `requeue` (somebody else wrote first), `requeue_after` (the pass asked for it)",
    "name": "of `workqueue_*`: the controller's; of `leader_election_*`: the Lease's",
    "priority": f"a number; after {PRIORITIES} different ones `{EXCEEDED}`, for all together",
    "code": f"the answer's HTTP status, `<error>` when there was none; after {CODES} different ones `{EXCEEDED}`",
    "method": "GET, POST, PUT, PATCH, DELETE",
    "verb": "as `method`",
    "host": "host and port of the API server",
    "resource": "`<plural>.<group>` of a kind that is cached, as declared; `<plural>` in the core group",
    "cause": (
        "`end` (as agreed), `expired` (410), `silent` (no bookmark came), `moved` (another server, or an older state "
        "of it), `unstreamed` (it lists in pages only), `refused`, `broken`, `denied` (RBAC), `missing` (no such CRD), "
        "`ahead` (the server lags), `probe`, `error`"
    ),
    "state": "`streaming`, `paging`, `watching`, `probing`, `backing_off`",
    "task": "name of a background task, as declared",
    "path": "a path that the side server has; others are not counted",
    "version": "of asyncctl",
    "python": "of Python",
}
"""What each label may hold, and so what bounds how many there are."""


class Families:
    """Every name that `Metrics` shows, in the order of the page; the first of a section says which one begins."""

    def __init__(self) -> None:
        counter, gauge, controller = CounterMetricFamily, GaugeMetricFamily, ("controller",)
        queue, resource, http = ("name", "controller"), ("resource",), ("verb", "host")

        self.reconcile = Numbers(
            counter, "controller_runtime_reconcile_total", "Passes, by result.", ("controller", "result"),
            section="Controllers",
        )  # fmt: skip
        self.reconcile_errors = Numbers(
            counter, "controller_runtime_reconcile_errors_total", "Passes that failed.", controller,
            advice="Alert on its ratio to `controller_runtime_reconcile_total`: during an outage it rises for all "
            "controllers, and nothing is parked; for one alone, read its log lines `the pass has failed`.",
        )  # fmt: skip
        self.terminal_errors = Numbers(
            counter, "controller_runtime_terminal_reconcile_errors_total",
            "Passes that failed and are not tried again.", controller,
            advice="An object's own fault, most often: its condition `Stalled` says what to change.",
        )  # fmt: skip
        self.panics = Numbers(
            counter, "controller_runtime_reconcile_panics_total",
            "Errors that nobody foresaw, of passes, predicates and mappers.", controller,
            advice="A bug, most often. Its traceback is in the log, once for each place.",
        )  # fmt: skip
        self.timeouts = Numbers(
            counter, "controller_runtime_reconcile_timeouts_total", "Passes that were cut off.", controller,
            advice="What a pass waits for takes longer than `ASYNCCTL_RECONCILE_TIMEOUT`.",
        )  # fmt: skip
        self.reconcile_time = Distributions(
            "controller_runtime_reconcile_time_seconds", "How long a pass takes.", controller, RECONCILE_BUCKETS
        )
        self.active_workers = Numbers(
            gauge, "controller_runtime_active_workers", "Workers in a pass now.", controller,
            advice="At `controller_runtime_max_concurrent_reconciles` for long while `workqueue_depth` grows: more "
            "workers (`ASYNCCTL_WORKERS`), or shorter passes.",
        )  # fmt: skip
        self.max_concurrent = Numbers(
            gauge, "controller_runtime_max_concurrent_reconciles", "Workers there are.", controller, max
        )
        self.plain_reconcile_time = Distributions(
            "reconcile_duration_seconds", "How long a pass takes, under a plain name.", controller, RECONCILE_BUCKETS
        )
        self.plain_reconcile_errors = Numbers(
            counter, "reconcile_errors_total", "Passes that failed, under a plain name.", controller
        )
        self.active_controllers = Numbers(
            gauge, "active_controllers", "Controllers whose workers run.",
            advice="0 on a standby, and until the caches are filled.",
        )  # fmt: skip
        self.parked = Numbers(
            gauge, "asyncctl_parked_keys", "Keys that are not tried again soon.", controller,
            advice="Each is an object with condition `Stalled`; the log has `parked until the object changes`.",
        )  # fmt: skip
        self.paused = Numbers(
            gauge, "asyncctl_paused_objects", "Objects that are skipped: asyncctl/paused.", controller,
            advice="Somebody has annotated them, and may have forgotten it.",
        )  # fmt: skip
        self.background_failures = Numbers(
            counter, "asyncctl_background_failures_total", "Times that a background task has failed.", ("task",),
            appears="for each background task that the program declares",
            advice="It is started again; the log has `a background task has failed`.",
        )  # fmt: skip
        self.events_dropped = Numbers(
            counter, "asyncctl_events_dropped_total", "Events that were neither written nor counted in a series.",
            advice="Too much is said about one object, or more than the API server takes: the log says which.",
        )  # fmt: skip

        self.queue_depth = Numbers(
            gauge, "workqueue_depth", "Keys that wait for a worker.", (*queue, "priority"), section="Queues"
        )
        self.queue_adds = Numbers(counter, "workqueue_adds_total", "Keys added.", queue)
        self.queue_time = Distributions(
            "workqueue_queue_duration_seconds", "How long a key waits for a worker.", queue, QUEUE_BUCKETS,
            advice="What a user waits before anything happens.",
        )  # fmt: skip
        self.work_time = Distributions(
            "workqueue_work_duration_seconds", "How long a worker holds a key.", queue, QUEUE_BUCKETS
        )
        self.unfinished_work = Numbers(
            gauge, "workqueue_unfinished_work_seconds", "For how long all keys together have been held by now.", queue
        )
        self.longest_work = Numbers(
            gauge, "workqueue_longest_running_processor_seconds", "For how long the oldest has been held.", queue, max,
            advice="Over `ASYNCCTL_RECONCILE_TIMEOUT`: a pass that does not heed its cancellation. `/livez` fails 30 s "
            "later.",
        )  # fmt: skip
        self.queue_retries = Numbers(
            counter, "workqueue_retries_total", "Keys added for later: retries, most often.", queue
        )

        self.requests = Numbers(
            counter, "rest_client_requests_total", "Requests to the API server.", ("code", "method", "host"),
            section="Requests",
            advice="403: a rule of RBAC is missing, `asyncctl check` says which (one POST at the start is how a "
            "process sees that the API server's fence is in force). 409: somebody else writes the same objects. "
            "429: the server is busy. `<error>`: the way to it is broken.",
        )  # fmt: skip
        self.request_time = Distributions(
            "rest_client_request_duration_seconds", "How long a request takes.", http, REQUEST_BUCKETS
        )
        self.limiter_time = Distributions(
            "rest_client_rate_limiter_duration_seconds", "How long a request waits for ASYNCCTL_QPS.",
            http, REQUEST_BUCKETS,
            advice="More than now and then: raise `ASYNCCTL_QPS` and `ASYNCCTL_BURST`, or leave it to the server (0).",
        )  # fmt: skip
        self.request_retries = Numbers(
            counter, "rest_client_request_retries_total", "Requests sent again.", ("code", "verb", "host"),
            appears="with the first retry",
        )  # fmt: skip
        self.api_warnings = Numbers(
            counter, "asyncctl_api_warnings_total", "Warning headers in answers of the API server.", ("host",),
            advice="A deprecated API version, a field that nobody knows: each text is logged once.",
        )  # fmt: skip

        self.leader = Numbers(
            gauge, "leader_election_master_status", "1 for the holder of the Lease, 0 for a standby.", ("name",), max,
            section="Leadership", appears="where `ASYNCCTL_LEADER_ELECTION` is on",
            advice="Alert when its sum over all replicas is not 1 for a minute.",
        )  # fmt: skip
        self.fenced_writes = Numbers(
            counter, "asyncctl_fenced_writes_total", "Writes refused because the Lease was not held.",
            advice="A few as a leader is deposed are the fence at work. Steadily, from a process that leads: something "
            "writes before it is elected.",
        )  # fmt: skip

        self.cache_objects = Numbers(
            gauge, "asyncctl_cache_objects", "Objects in the cache.", resource, section="Caches"
        )
        self.cache_bytes = Numbers(gauge, "asyncctl_cache_bytes", "Bytes of objects in the cache.", resource)
        self.cache_synced = Numbers(
            gauge, "asyncctl_cache_synced", "1 when every cache of this resource is kept up.", resource, min,
            advice="0 for minutes: `/readyz?verbose` says why. Controllers go on with what they know.",
        )  # fmt: skip
        self.cache_unreadable = Numbers(
            counter, "asyncctl_cache_unreadable_total", "Objects that came and could not be read.", resource,
            advice="They do not fit the kind's class: an older or newer version of it wrote them.",
        )  # fmt: skip
        self.cache_failures = Numbers(
            counter, "asyncctl_cache_failures_total", "Index functions and handlers that raised.", resource,
            advice="A bug: an index lacks objects. The traceback is in the log, once for each place.",
        )  # fmt: skip
        self.watch_restarts = Numbers(
            counter, "asyncctl_watch_restarts_total", "Lists and watches asked for again, by cause.",
            (*resource, "cause"), appears="with the first of its cause; a watch ends after 5 to 10 minutes",
            advice="`end` is as it should be. `denied`: a rule is missing. `missing`: the CRD is not there.",
        )  # fmt: skip
        self.watch_states = Numbers(
            gauge, "asyncctl_watch_states", "Watches, by what they are doing.", (*resource, "state")
        )
        self.watch_idle = Numbers(
            gauge, "asyncctl_watch_idle_seconds", "Time since the last event or bookmark.", resource, max,
            advice="The server says something each minute. Past 150 s the watch is given up and opened anew.",
        )  # fmt: skip

        self.loop_lag = Distributions(
            "asyncctl_event_loop_lag_seconds", "How late the event loop calls a timer.", (), LAG_BUCKETS,
            section="The process",
            advice="Something blocks the loop, or the CPU limit is too low; over a second the log has the stack.",
        )  # fmt: skip
        self.http_time = Distributions(
            "asyncctl_http_request_duration_seconds", "How long a probe or scrape takes.", ("path",), REQUEST_BUCKETS
        )
        self.build = Numbers(gauge, "asyncctl_build_info", "Versions; always 1.", ("version", "python"), max)
