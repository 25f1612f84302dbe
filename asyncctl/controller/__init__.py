"""The loop between what changed and the author's coroutine, and what that coroutine is given."""
