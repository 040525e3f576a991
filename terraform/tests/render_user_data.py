"""Prints single-host's user data as Terraform would, with names that look real, for shellcheck."""

import json
import pathlib
import subprocess
import tempfile

template = pathlib.Path(__file__).parent.parent / "modules/single-host/user_data.sh.tftpl"
values = {
    "region": "us-east-1",
    "repository_url": "https://git.example.com/engine.git",
    "repository_ref": "v1.2.3",
    "variables_json": json.dumps({"engine_domain": "engine.example.com"}),
    "data_volume_id": "vol-0123456789abcdef0",
}
with tempfile.TemporaryDirectory() as empty:
    answer = subprocess.run(
        ["terraform", f"-chdir={empty}", "console"],
        input=f"jsonencode(templatefile({json.dumps(str(template))}, {json.dumps(values)}))",
        capture_output=True,
        text=True,
        check=True,
    )
# The console prints a string that holds JSON.
print(json.loads(json.loads(answer.stdout)), end="")
