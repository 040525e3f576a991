"""What `terraform show -json` says of a state or a plan; `ops/tfcheck --state` writes the same form."""

import json


def managed(path):
    """Every resource that Terraform makes, of all modules, each as the file has it."""
    state = json.loads(path.read_text())
    root = (state.get("values") or state["planned_values"])["root_module"]
    return [resource for resource in walk(root) if resource["mode"] == "managed"]


def walk(module):
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from walk(child)
