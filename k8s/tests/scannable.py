"""Write the renderings into a folder as scanners of the core kinds understand them.

A Rollout is unknown to them; its pods are those of a Deployment.

    scannable.py DIRECTORY [--plant]     with a mistake of each kind that must be found
"""

import pathlib
import sys

import yaml

from objects import RENDERED, as_deployment, load, template_of


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(RENDERED.glob("*.yaml")):
        objects = [as_deployment(it) for it in load(path.stem)]
        if "--plant" in sys.argv:
            for it in objects:
                if it["kind"] == "Deployment":
                    spec = template_of(it)["spec"]
                    spec["hostNetwork"] = True
                    spec["containers"][0]["securityContext"] = {"privileged": True}
                    del spec["containers"][0]["livenessProbe"]
        (directory / path.name).write_text(yaml.safe_dump_all(objects))


if __name__ == "__main__":
    main()
