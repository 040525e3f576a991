"""What the figures were taken on."""

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path

FSYNC_TRIES = 200
FSYNC_BYTES = 8192
# Above this something else runs, and ratios of sides that run minutes apart
# compare different machines.
QUIET_LOAD = 0.5


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def processor():
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_mib():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def fsync_us(folder):
    """The median of writing 8 KiB durably, in microseconds: what a commit waits for."""
    path = Path(folder) / "fsync-probe"
    times = []
    with open(path, "wb") as probe:
        for _ in range(FSYNC_TRIES):
            probe.seek(0)
            begin = time.perf_counter()
            probe.write(b"x" * FSYNC_BYTES)
            probe.flush()
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - begin)
    path.unlink()
    return round(sorted(times)[FSYNC_TRIES // 2] * 1e6)


def describe(folder, repository):
    git = ["git", "-C", str(repository)]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": first_line([*git, "describe", "--always", "--dirty", "--abbrev=12"]),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_mib": memory_mib(),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": first_line(["findmnt", "-n", "-o", "FSTYPE", "-T", str(folder)]),
        "fsync_8k_us": fsync_us(folder),
        "load_before": round(os.getloadavg()[0], 2),
        "rustc": first_line(["rustc", "--version"]),
    }


def engine_environment():
    """Settings that reach every engine from the caller's shell; no URLs, no passwords."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("ENGINE_") and "URL" not in name
    }


def postgres(database):
    """Version and every setting that is not the built-in default."""
    hidden = "'^(data_directory|hba_file|ident_file|.*_file|unix_socket.*|port|listen_addresses|lc_.*|.*timezone.*|log_.*|application_name|client_encoding|DateStyle|default_text_search_config|config_file)$'"
    rows = database.query(
        "SELECT name || '=' || current_setting(name) FROM pg_settings "
        f"WHERE source NOT IN ('default', 'override', 'client') AND name !~ {hidden} ORDER BY name"
    )
    settings = dict(row.split("=", 1) for row in rows.splitlines() if row)
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        settings[name] = database.query(f"SHOW {name}")
    return {"version": database.query("SHOW server_version"), "settings": settings}
