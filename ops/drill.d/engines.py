"""Drills that take engines and the network away."""

import signal
import sys
import time
from pathlib import Path

from drill import drill
from database import DETECT_S, promise_rto, promote
from machine import free_ports

STALL_PROXY = Path(__file__).resolve().parent / "stall_proxy.py"
STALL_S = 8
PAUSE_S = 20
# Over the balancer's half a second until it has seen an unready engine twice.
SHUTDOWN_DELAY_S = 2


@drill("engine-crash", "an engine dies (SIGKILL) with transfers in flight and is started again")
def engine_crash(stage):
    """SIGKILL to one of two engines; the balancer and the clients' retries move to the
    other one, with the same keys; the first is started again three seconds later."""
    stage.build()
    engine = stage.engines[0]
    began = stage.fault("SIGKILL to engine 1")
    engine.process.kill()
    promise_rto(stage, began, stage.recovered(began + 0.3), "the crash")
    stage.go_on(3)
    stage.mark("engine 1 starts again", kind="repair")
    engine.start()
    stage.mark("engine 1 is ready", kind="repair")
    stage.settle()


@drill("engine-rolling-restart", "both engines are restarted in turn: no request may fail")
def engine_rolling_restart(stage):
    """SIGTERM to one engine, with nothing said to the balancer: the engine is unready at
    once, serves on for --shutdown-delay while the balancer notices, asks its clients to
    leave, answers what it accepted and ends; start; wait until it is ready; then the
    other. The load does not retry and the balancer repeats nothing: each request has
    one chance.
    """
    stage.build(engine_settings={"ENGINE_SHUTDOWN_DELAY": f"{SHUTDOWN_DELAY_S}s"},
        load={"retries": 0}, balancer={"repeats": False})  # fmt: skip
    for engine in stage.engines:
        begun = stage.fault(f"SIGTERM to engine {engine.name}")
        code = engine.stop()
        stage.mark(f"engine {engine.name} ended with {code} after {time.monotonic() - begun:.2f} s")
        stage.promise(f"engine {engine.name} stops cleanly", code == 0, f"exit code {code}")
        engine.start()
        stage.mark(f"engine {engine.name} is ready again", kind="repair")
        stage.go_on(4)
    stage.after(no_request_failed)


def no_request_failed(stage):
    """After the end: every answer was a 200, and every request had one."""
    load = stage.ended["load"]
    bad = {code: count for code, count in load["statuses"].items() if code != "200"}
    broken = {name: load["errors"][name] for name in ("connect", "io", "timeout", "protocol")}
    lost = sum(bad.values()) + sum(broken.values())
    canaries = sum(row["status"] != 200 for row in stage.watch.canaries)
    stage.promise(
        "no request failed, without a retry by the clients",
        lost == 0 and canaries == 0,
        f"{lost} of {load['requests']['sent']:,}, {canaries} of {len(stage.watch.canaries)} "
        f"canaries {bad or ''} {broken if lost else ''}".strip(),
    )


@drill("network-stall", "the network between engines and primary swallows everything for a while")
def network_stall(stage):
    """The engines reach the primary through a proxy, which black-holes: no byte, no
    reset, no refusal, for eight seconds. New connections hang as well. Then what was
    under way arrives, as after a lost link whose packets are sent again."""
    stage.build_database()
    stage.build_redis()
    port = free_ports(1)[0]
    command = [sys.executable, "-B", STALL_PROXY, port, stage.nodes["a"].port]
    proxy = stage.place.processes.start("proxy", command)
    stage.build_engines(database_hosts=[port, stage.nodes["b"].port])
    stage.open_accounts()
    stage.start_load()
    stage.fault("the network stalls")
    proxy.popen.send_signal(signal.SIGUSR1)
    time.sleep(STALL_S)
    back = stage.mark("the network works again", kind="repair")
    proxy.popen.send_signal(signal.SIGUSR2)
    promise_rto(stage, back, stage.recovered(back), "the network's return")
    stage.settle()


@drill("engine-pause", "an engine stands still while the primary is replaced, and wakes up")
def engine_pause(stage):
    """SIGSTOP to one engine, in the middle of what it does; the primary is lost and its
    standby promoted; twenty seconds later the engine goes on (SIGCONT) with
    connections to a server that is gone and with requests nobody waits for."""
    stage.build()
    engine = stage.engines[0]
    stage.fault("SIGSTOP to engine 1")
    engine.process.popen.send_signal(signal.SIGSTOP)
    stage.go_on(4)
    stage.mark("SIGKILL to the primary, all its processes", kind="fault")
    stage.nodes["a"].kill()
    time.sleep(DETECT_S)
    ordered = promote(stage, stage.nodes["b"])
    promise_rto(stage, ordered, stage.recovered(ordered))
    stage.go_on(PAUSE_S)
    stage.mark("SIGCONT to engine 1", kind="repair")
    engine.process.popen.send_signal(signal.SIGCONT)
    engine.wait_ready()
    stage.mark("engine 1 is ready", kind="repair")
    stage.settle()
