"""The settings with which a session of ours begins, before its first statement could set any.

A tenant can set for his database what acts that early: a library that is not there, which ends each session, or a time
so short that none gets as far as to lengthen it. What a client sends as it connects goes before what role and database
say.
"""

_PINNED = {
    "local_preload_libraries": "",
    "role": "none",
    "search_path": "pg_catalog,pg_temp",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_SINCE_17 = {"transaction_timeout": "0"}
_CUT_OFF = "terminating connection due to transaction timeout"


def options(*, since_17: bool = False) -> str:
    """Return what is sent as `options`; what an older server would not know is sent to one only that is known to."""
    return " ".join(f"-c {name}={value}" for name, value in (_PINNED | (_SINCE_17 if since_17 else {})).items())


def was_cut_off(error: Exception) -> bool:
    """Whether a session ended by a setting that only `since_17` overrides, and which only such a server has."""
    return _CUT_OFF in str(error)
