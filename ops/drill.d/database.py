"""Drills that take the database away."""

import time

from drill import drill

RTO_PROMOTION_S = 5.0
DETECT_S = 1.0


def promote(stage, node):
    """Scripted promotion; when it was ordered."""
    ordered = stage.mark(f"pg_ctl promote on {node.name}", kind="repair")
    node.promote()
    stage.primary = node
    stage.mark(f"{node.name} takes writes", kind="repair")
    return ordered


def promise_rto(stage, ordered, at):
    rto = at - ordered
    stage.figures["rto_from_promotion_s"] = round(rto, 3)
    stage.promise(
        f"first acknowledged transfer at most {RTO_PROMOTION_S:.0f} s after promotion was ordered",
        rto <= RTO_PROMOTION_S,
        f"{rto:.2f} s",
    )


@drill("primary-loss", "the primary's machine is gone (SIGKILL); the standby is promoted")
def primary_loss(stage):
    """SIGKILL to every process of the primary, then pg_ctl promote on the standby."""
    stage.build()
    stage.fault("SIGKILL to the primary, all its processes")
    stage.nodes["a"].kill()
    # What an operator's script or Patroni needs to be sure.
    time.sleep(DETECT_S)
    ordered = promote(stage, stage.nodes["b"])
    promise_rto(stage, ordered, stage.recovered(ordered))
    stage.go_on()
