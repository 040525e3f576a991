"""Whoever talks to the database or to Redis asks who answers: by the URLs and files of each container."""

import urllib.parse

from objects import containers_of, label, named, of_kind, template_of, workloads


def environment_of(container: dict, objects: list[dict]) -> dict[str, str]:
    """What the container finds in its environment, as far as the rendering says it."""
    values = {it["metadata"]["name"]: it.get("stringData") or it.get("data") or {} for it in of_kind(objects, "Secret", "ConfigMap")}
    for it in of_kind(objects, "ExternalSecret"):
        values[it["spec"]["target"]["name"]] = it["spec"]["target"]["template"]["data"]
    result = {}
    for source in container.get("envFrom", []):
        for reference in source.values():
            result.update(values.get(reference["name"], {}))
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        result[variable["name"]] = values.get(reference["name"], {}).get(reference["key"], "") if reference else variable.get("value", "")
    return result


def mounted_file(template: dict, container: dict, path: str) -> str:
    """Why `path` is no read-only file of a ConfigMap in the container; empty if it is one."""
    folder = path.rpartition("/")[0]
    mount = next((one for one in container.get("volumeMounts", []) if one["mountPath"] == folder), None)
    if not path or not mount:
        return f"nothing is mounted at {folder or 'the authorities'}"
    volume = next((one for one in template["spec"].get("volumes", []) if one["name"] == mount["name"]), {})
    if not volume.get("configMap", {}).get("name") or not mount.get("readOnly"):
        return f"{folder} is not a ConfigMap, read-only"
    return ""


def database_is_checked(objects):
    """verify-full and mounted authorities for every database URL, and for libpq's variables."""
    asked = 0
    for it in workloads(objects):
        for one in containers_of(it):
            own = environment_of(one, objects)
            ways = {}
            for name, value in own.items():
                if value.startswith(("postgres://", "postgresql://")):
                    given = dict(urllib.parse.parse_qsl(value.partition("?")[2]))
                    ways[name] = (given.get("sslmode"), given.get("sslrootcert", own.get("ENGINE_DATABASE_CA_FILE", "")))
            if "PGHOST" in own:
                ways["PGHOST"] = (own.get("PGSSLMODE"), own.get("PGSSLROOTCERT", ""))
            asked += len(ways)
            for name, (mode, file) in ways.items():
                if mode != "verify-full":
                    yield f"{label(it)}: {one['name']} takes whoever answers for the database: {name} has sslmode {mode}"
                elif why := mounted_file(template_of(it), one, file):
                    yield f"{label(it)}: {one['name']} knows no authorities for {name}: {why}"
    if asked < 7:
        yield f"only {asked} ways to the database were found: this check does not see what it is for"


def redis_is_checked(objects):
    secret = named(objects, "ExternalSecret", "engine-app")
    url = secret["spec"]["target"]["template"]["data"].get("ENGINE_REDIS_URL", "") if secret else ""
    if not url.startswith("rediss://:{{"):
        yield f"Redis is not asked with TLS and a password: {url or 'it is not named'}"
