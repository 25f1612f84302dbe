"""What the tests of the side server share."""


def told(caplog):
    """What was logged, but for what asyncio's debug mode says of a busy machine."""
    return [record for record in caplog.records if "Executing" not in record.msg]
