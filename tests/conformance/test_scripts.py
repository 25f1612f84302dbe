"""Each request script, on both servers: the real one judges what the embedded one is held to."""

import os
from pathlib import Path

import pytest

from tests.conformance import script

FOLDER = Path(__file__).parent / "scripts"
CASES = [(path, number) for path in sorted(FOLDER.glob("*.yaml")) for number in range(len(script.load(path)))]


@pytest.mark.parametrize(
    ("path", "number"), CASES, ids=lambda value: value.stem if isinstance(value, Path) else str(value)
)
async def test_every_answer_is_the_real_servers(backend, client, path, number):
    cases = script.load(path)
    case = cases[number]
    client.managed = case.get("managed", False)
    recording = os.environ.get("ASYNCCTL_TEST_RECORD") and backend.name == "kube"
    if backend.name in case.get("not_on", ()):
        pytest.skip(f"{case['case']}: see differences.md")
    wrong = []
    async for step, got in script.run(client, case):
        wanted = {name: step[name] for name in ("code", "warnings", "answer") if name in step}
        if isinstance(step.get("headers"), dict):
            wanted["headers"] = step["headers"]
        if recording:
            step.pop("warnings", None)
            step.update(got)
        elif got != wanted and "until" not in step:
            wrong.append(f"{step['do']}\n  wanted {wanted}\n  got    {got}")
    if recording:
        script.save(path, cases)
    assert not wrong, f"{case['case']}:\n" + "\n".join(wrong)
